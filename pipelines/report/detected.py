"""Images with their objects drawn in: as annotated, and as a network found them."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from dataprep.images import Pixels, decode_stored, encode_jpeg
from dataprep.tasks.run_lengths import mask_of
from orchestration import Dataset
from pipelines.readers.rows import RowReader
from pipelines.report.contact_sheets import jpeg_uri
from pipelines.report.drawn_words import Words, with_words

_LONGEST_SIDE: Final = 320
_QUALITY: Final = 85
_LEAST_SCORE: Final = 0.3
"Detections with a smaller score are not drawn."
_MASK_WEIGHT: Final = 0.45
_LETTERS: Final = 10
"Size of the words in pixels."


@dataclass(frozen=True)
class Outline:
    """A box with its mask, in pixels of the annotated image."""

    label: str
    box: Sequence[float]
    mask: str
    "Text of run lengths; empty without a mask."
    words: str
    "What is written beside it."


def object_uris(
    examples: Dataset, predictions: Dataset, rows: Iterable[int]
) -> dict[int, list[str]]:
    """Return two data URIs for each row: the image with annotated, and with found objects."""
    numbers = np.array(sorted(set(rows)), np.int64)
    if not len(numbers):
        return {}
    columns = ["example_id", "images", "labels", "objects", "size"]
    given = RowReader(examples, columns, keep=1).take(numbers).to_pylist()
    columns = ["labels", "scores", "boxes", "masks"]
    found = RowReader(predictions, columns, keep=1).take(numbers).to_pylist()
    uris = {}
    for number, example, prediction in zip(numbers.tolist(), given, found, strict=True):
        image = enlarged(decode_stored(example["images"][0], example["example_id"]))
        size = example["size"]
        uris[number] = [
            jpeg_uri(encode_jpeg(with_objects(image, size, outlines), _QUALITY))
            for outlines in (_annotated(example), _found(prediction))
        ]
    return uris


def _annotated(example: Mapping[str, Any]) -> list[Outline]:
    return [
        Outline(label, thing["box"], thing["mask"], f"{label}{' (crowd)' * thing['is_crowd']}")
        for thing, label in zip(example["objects"], example["labels"], strict=True)
    ]


def _found(prediction: Mapping[str, Any]) -> list[Outline]:
    masks = prediction["masks"] or [""] * len(prediction["labels"])
    parts = (prediction["labels"], prediction["scores"], prediction["boxes"], masks)
    return [
        Outline(label, box, mask, f"{label} {score:.2f}")
        for label, score, box, mask in zip(*parts, strict=True)
        if score >= _LEAST_SCORE
    ]


def enlarged(image: Pixels, longest_side: int = _LONGEST_SIDE) -> Pixels:
    """Scale an image so that lines and words on it can be read."""
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def with_objects(image: Pixels, size: Sequence[int], outlines: Sequence[Outline]) -> Pixels:
    """Return an image with objects drawn in.

    Args:
        image: (height, width, 3), scaled.
        size: width and height of the image to which the objects refer.
        outlines: the objects.
    """
    canvas, names = image.copy(), []
    height, width = canvas.shape[:2]
    scale = np.array([width / size[0], height / size[1]])
    for outline in outlines:
        color = color_of(outline.label)
        if outline.mask:
            mask = mask_of(outline.mask, *size).astype(np.uint8)
            covered = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0
            mixed = canvas[covered] * (1 - _MASK_WEIGHT) + np.array(color) * _MASK_WEIGHT
            canvas[covered] = mixed.astype(np.uint8)
        corner = np.array(outline.box[:2]) * scale
        far = corner + np.array(outline.box[2:]) * scale
        first, last = (tuple(int(v) for v in point) for point in (corner, far))
        cv2.rectangle(canvas, first, last, color, 1, cv2.LINE_AA)
        place = (first[0] + 2, max(first[1] - 3, 9))
        names.append(Words(outline.words, place, color))
    return with_words(canvas, names, _LETTERS)


def color_of(label: str) -> tuple[int, int, int]:
    """Return a strong color that belongs to the name of a class."""
    hue = zlib.crc32(label.encode()) % 180
    hsv = np.array([[[hue, 220, 230]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue
