"""Panels that draw over the image: found objects, and the classes of its pixels."""

from collections.abc import Mapping
from typing import Any, Final

from pipelines.inference.results import Candidate
from pipelines.report.detected import Outline, enlarged, with_objects
from pipelines.report.segmented import with_classes
from pipelines.try_page.panel import Panel, Unusable, bars, data_address, image_of

_LONGEST_SIDE: Final = 640
"In pixels of the image that is drawn on."
_MOST_ASPECT: Final = 50
"Long side to short of an image whose pixels are classified: other requests wait meanwhile."


class ObjectPanel(Panel):
    """Objects with their boxes and masks."""

    kind = "objects"
    title = "Objects"
    least = 0.3
    "Score above which an object is drawn, unless the page asks for another."

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`; ``least`` is the score above which an object is drawn."""
        image = image_of(values)
        least = self._least(values)
        (found,) = self.model.detect([image], min_score=least)
        height, width = image.shape[:2]
        outlines = [
            Outline(each.label, each.box, each.run_lengths or "", f"{each.label} {each.score:.2f}")
            for each in found
        ]
        drawn = with_objects(enlarged(image, _LONGEST_SIDE), (width, height), outlines[::-1])
        answer = {"drawn": data_address(drawn)}
        if not found:
            return {**answer, "note": f"no object has a score above {least:g}"}
        return {**answer, "rows": bars([Candidate(each.label, each.score) for each in found])}

    def _least(self, values: Mapping[str, Any]) -> float:
        try:
            least = float(values.get("least", self.least))
        except (TypeError, ValueError, OverflowError):
            least = -1.0
        if not 0 <= least < 1:
            raise Unusable("the smallest score is a number from 0 to less than 1")
        return least


class PixelPanel(Panel):
    """The class of each pixel."""

    kind = "pixels"
    title = "Classes of pixels"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`; the score of a class is its part of the image."""
        image = image_of(values)
        shorter, longer = sorted(image.shape[:2])
        if longer > _MOST_ASPECT * shorter:
            raise Unusable(
                f"{longer} x {shorter} pixels are too many windows; the longer side may have at "
                f"most {_MOST_ASPECT} times the shorter one here"
            )
        (found,) = self.model.segment([image])
        drawn = with_classes(enlarged(image, _LONGEST_SIDE), found.png, found.labels)
        parts = zip(found.labels, found.fractions, strict=True)
        return {"drawn": data_address(drawn), "rows": bars([Candidate(*pair) for pair in parts])}
