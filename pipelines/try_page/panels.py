"""What each kind of model shows: the panels of its methods."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from dataprep.images import resize
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.inference.pretrained_model import PretrainedModel
from pipelines.inference.results import Candidate
from pipelines.try_page.dense_panels import ObjectPanel, PixelPanel
from pipelines.try_page.mask_panels import PatchPanel, WordPanel
from pipelines.try_page.panel import (
    NUM_BEST,
    Panel,
    Unusable,
    bars,
    data_address,
    image_of,
    text_of,
    texts_of,
)

_SHOWN_SIDE: Final = 480
"Short side in pixels of the preview of an image."
_LONGEST_SIDE: Final = 4096
"In pixels of the preview: no browser shows a million."


class Preview(Panel):
    """The image as it was decoded."""

    kind = "preview"
    title = "Image"

    def __init__(self) -> None:
        """Needs no model."""

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`."""
        pixels = image_of(values)
        height, width = pixels.shape[:2]
        scale = min(_SHOWN_SIDE / min(width, height), _LONGEST_SIDE / max(width, height), 1)
        shown = resize(pixels, (max(round(width * scale), 1), max(round(height * scale), 1)))
        return {"image": data_address(shown), "size": f"{width} x {height}"}


class CaptionPanel(Panel):
    """A caption of the image."""

    kind = "caption"
    title = "Caption"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`."""
        (caption,) = self.model.caption([image_of(values)])
        return {"caption": caption}


class AnswerPanel(Panel):
    """Answers to a question about the image."""

    kind = "answer"
    title = "Answer"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`."""
        question = text_of(values, "type a question")
        (best,) = self.model.answer([image_of(values)], [question], top_k=NUM_BEST)
        return {"rows": bars(best)}


class ClassPanel(Panel):
    """Classes of the image."""

    kind = "classes"
    title = "Classes"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`."""
        (best,) = self.model.classify([image_of(values)], top_k=NUM_BEST)
        return {"rows": bars(best)}


class TextClassPanel(Panel):
    """Classes of a text, or of a pair of texts in two lines."""

    kind = "text_classes"
    title = "Classes of a text"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`."""
        lines = texts_of(values, "type a text, or two lines for a pair of texts")
        if len(lines) > 2:
            raise Unusable("a text, or two lines for a pair of texts, can be judged")
        text = lines[0] if len(lines) == 1 else tuple(lines)
        try:
            (best,) = self.model.classify([text], top_k=NUM_BEST)
        except ValueError as error:  # a pair where the task has one text, or the reverse
            raise Unusable(str(error)) from None
        return {"rows": bars(best)}


class NearestPanel(Panel):
    """The texts of a list that are nearest to the image."""

    kind = "nearest"
    title = "Nearest texts"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`; scores are cosines."""
        texts = list(dict.fromkeys(texts_of(values, "type some texts, one per line")))
        (cosines,) = self.model.similarity([image_of(values)], texts)
        best = sorted(zip(texts, map(float, cosines), strict=True), key=lambda pair: -pair[1])
        return {"rows": bars([Candidate(*pair) for pair in best])}


_PANELS: Final[Mapping[str, Callable[[PretrainedModel, str], Panel]]] = {
    "caption": CaptionPanel,
    "answer": AnswerPanel,
    "classify": ClassPanel,
    "similarity": NearestPanel,
    "detect": ObjectPanel,
    "segment": PixelPanel,
    "fill_patches": PatchPanel,
    "fill_mask": WordPanel,
}
"The panel of each method of a model."
_NEEDED: Final = {"fill_patches": {"codes"}}
"Other methods that a method's panel uses."


def panels_of(models: Mapping[str, PretrainedModel]) -> Iterator[Panel]:
    """Yield the panels of models by their names; the first shows the image itself."""
    yield Preview()
    for name, model in models.items():
        for method, panel in _PANELS.items():
            if method not in model.methods or not _NEEDED.get(method, set()) <= {*model.methods}:
                continue
            judges_texts = method == "classify" and isinstance(model.task, TextClassification)
            yield (TextClassPanel if judges_texts else panel)(model, name)
