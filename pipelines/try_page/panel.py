"""A panel of the page: one use of one model; and what requests hold.

A request holds ``image`` (an image file in base64), ``text`` and more, as far as the panel needs
it. An image is decoded by the rules of ``dataprep.images``.
"""

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import cv2

from dataprep.images import ImageError, Pixels, decode_image
from dataprep.text import clean_caption
from pipelines.inference.pretrained_model import PretrainedModel
from pipelines.inference.results import Candidate

NUM_BEST: Final = 5
"Largest number of answers that are shown."
_MAX_TEXTS: Final = 200
_MAX_CHARACTERS: Final = 20_000


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


def image_of(values: Mapping[str, Any]) -> Pixels:
    """Return the image (height, width, 3) of a request.

    Raises:
        Unusable: there is none, or it cannot be read.
    """
    encoded = values.get("image")
    if not isinstance(encoded, str) or not encoded:
        raise Unusable("choose an image first")
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise Unusable("the image did not arrive whole; choose it again") from None
    try:
        return decode_image(data)
    except ImageError as error:
        words = error.reason.replace("_", " ")
        raise Unusable(f"{words} ({error.detail})" if error.detail else words) from None


def text_of(values: Mapping[str, Any], missing: str) -> str:
    """Return the text of a request; :class:`Unusable` with the words ``missing`` without one."""
    cleaned = clean_caption(written(values))
    if not cleaned:
        raise Unusable(missing)
    return cleaned


def written(values: Mapping[str, Any]) -> str:
    """Return the text of a request as it was written; an empty one if there is none."""
    text = values.get("text")
    if not isinstance(text, str):
        return ""
    if len(text) > _MAX_CHARACTERS:
        raise Unusable(f"the text has {len(text)} characters, more than {_MAX_CHARACTERS}")
    return text


def texts_of(values: Mapping[str, Any], missing: str) -> list[str]:
    """Return the texts of a request, a line each; :class:`Unusable` without any."""
    cleaned = list(filter(None, map(clean_caption, written(values).splitlines())))
    if not cleaned:
        raise Unusable(missing)
    if len(cleaned) > _MAX_TEXTS:
        raise Unusable(f"{len(cleaned)} texts are more than the {_MAX_TEXTS} that are compared")
    return cleaned


def bars(best: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return labels with their scores for the page."""
    return [{"label": each.label or "␣", "score": round(float(each.score), 4)} for each in best]


def data_address(pixels: Pixels) -> str:
    """Return an image as the address of a PNG."""
    png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
