"""The panels of the page: for each use of a model what is asked and what is answered.

A request holds ``image`` (an image file in base64), ``text`` and ``texts``, as far as the panel
needs them. An image is decoded by the rules of ``dataprep.images``.
"""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import cv2

from dataprep.images import ImageError, Pixels, decode_image, fitted, resize
from dataprep.text import clean_caption
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.inference.pretrained_model import Candidate, PretrainedModel

_NUM_BEST: Final = 5
_MAX_TEXTS: Final = 200
_SHOWN_SIDE: Final = 480
"Short side in pixels of the preview of an image."


class Unusable(ValueError):
    """The request cannot be answered; the message is one sentence for the user."""


class Panel(ABC):
    """One use of one model."""

    kind: ClassVar[str]
    "Names the part of the page's template."
    title: ClassVar[str]

    def __init__(self, model: PretrainedModel, name: str) -> None:
        """Keep a model; ``name`` is how the page calls it."""
        self.model, self.name = model, name

    @abstractmethod
    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            Unusable: the request misses something, or its image cannot be read.
        """


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
        return {
            "image": data_address(resize(pixels, fitted(width, height, _SHOWN_SIDE))),
            "size": f"{width} x {height}",
        }


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
        (best,) = self.model.answer([image_of(values)], [question], top_k=_NUM_BEST)
        return {"rows": bars(best)}


class ClassPanel(Panel):
    """Classes of the image."""

    kind = "classes"
    title = "Classes"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`."""
        (best,) = self.model.classify([image_of(values)], top_k=_NUM_BEST)
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
        (best,) = self.model.classify([text], top_k=_NUM_BEST)
        return {"rows": bars(best)}


class NearestPanel(Panel):
    """The texts of a list that are nearest to the image."""

    kind = "nearest"
    title = "Nearest texts"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`; scores are cosines."""
        texts = texts_of(values, "type some texts, one per line")
        (cosines,) = self.model.similarity([image_of(values)], texts)
        best = sorted(zip(texts, map(float, cosines), strict=True), key=lambda pair: -pair[1])
        return {"rows": bars([Candidate(*pair) for pair in best])}


_PANELS: Final[Mapping[str, Callable[[PretrainedModel, str], Panel]]] = {
    "caption": CaptionPanel,
    "answer": AnswerPanel,
    "classify": ClassPanel,
    "similarity": NearestPanel,
}
"The panel of each method of a model."


def panels_of(models: Mapping[str, PretrainedModel]) -> Iterator[Panel]:
    """Yield the panels of models by their names; the first shows the image itself."""
    yield Preview()
    for name, model in models.items():
        for method, panel in _PANELS.items():
            if method not in model.methods:
                continue
            judges_texts = method == "classify" and isinstance(model.task, TextClassification)
            yield (TextClassPanel if judges_texts else panel)(model, name)


def image_of(values: Mapping[str, Any]) -> Pixels:
    """Return the image (height, width, 3) of a request.

    Raises:
        Unusable: there is none, or it cannot be read.
    """
    encoded = values.get("image")
    if not isinstance(encoded, str) or not encoded:
        raise Unusable("choose an image first")
    try:
        return decode_image(base64.b64decode(encoded, validate=True))
    except binascii.Error:
        raise Unusable("the image did not arrive whole; choose it again") from None
    except ImageError as error:
        raise Unusable(f"the image cannot be used: {error.detail or error.reason}") from None


def text_of(values: Mapping[str, Any], missing: str) -> str:
    """Return the text of a request; :class:`Unusable` with the words ``missing`` without one."""
    text = values.get("text")
    cleaned = clean_caption(text) if isinstance(text, str) else ""
    if not cleaned:
        raise Unusable(missing)
    return cleaned


def texts_of(values: Mapping[str, Any], missing: str) -> list[str]:
    """Return the texts of a request, a line each; :class:`Unusable` without any."""
    text = values.get("text")
    lines = text.splitlines() if isinstance(text, str) else []
    cleaned = list(dict.fromkeys(filter(None, map(clean_caption, lines))))
    if not cleaned:
        raise Unusable(missing)
    if len(cleaned) > _MAX_TEXTS:
        raise Unusable(f"{len(cleaned)} texts are more than the {_MAX_TEXTS} that are compared")
    return cleaned


def bars(best: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return labels with their scores for the page."""
    return [{"label": each.label, "score": round(float(each.score), 4)} for each in best]


def data_address(pixels: Pixels) -> str:
    """Return an image as the address of a PNG."""
    png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
