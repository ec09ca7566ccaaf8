"""Label maps drawn over their images: as annotated, and as a network found them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import cv2
import numpy as np

from dataprep.images import Pixels, decode_stored, encode_jpeg
from dataprep.tasks.label_classes import IGNORED
from dataprep.tasks.label_maps import LabelMap
from dataprep.tasks.stored_label_maps import restored
from orchestration import Dataset
from pipelines.readers.rows import RowReader
from pipelines.report.contact_sheets import jpeg_uri
from pipelines.report.detected import color_of, enlarged
from pipelines.report.drawn_words import Words, with_words

_QUALITY: Final = 85
_WEIGHT: Final = 0.55
"Of a class's color; the rest is the image's."
_LEAST_NAMED: Final = 0.01
"Part of the image from which on a class is named in it."
_LETTERS: Final = 11
"Size of the names in pixels."
_WHITE: Final = (255, 255, 255)
_BLACK: Final = (0, 0, 0)


def label_map_uris(
    examples: Dataset, predictions: Dataset, rows: Iterable[int]
) -> dict[int, list[str]]:
    """Return data URIs for each row: the image with its annotated, then its found classes.

    An image without a label map stands as it is in place of the first one.
    """
    numbers = np.array(sorted(set(rows)), np.int64)
    if not len(numbers):
        return {}
    columns = ["example_id", "images", "labels", "label_map"]
    given = RowReader(examples, columns, keep=1).take(numbers).to_pylist()
    found = RowReader(predictions, ["labels", "label_map"], keep=1).take(numbers).to_pylist()
    uris = {}
    for number, example, prediction in zip(numbers.tolist(), given, found, strict=True):
        image = enlarged(decode_stored(example["images"][0], example["example_id"]))
        uris[number] = [
            _drawn(image, row["label_map"], row["labels"]) for row in (example, prediction)
        ]
    return uris


def _drawn(image: Pixels, png: bytes | None, names: Sequence[str]) -> str:
    if png is not None:
        image = with_classes(image, png, names)
    return jpeg_uri(encode_jpeg(image, _QUALITY))


def with_classes(image: Pixels, png: bytes, names: Sequence[str]) -> Pixels:
    """Return an image (height, width, 3) with a label map over it.

    Args:
        image: the image, scaled.
        png: label map; each pixel is the place of its class among ``names``.
        names: of the classes.
    """
    size = image.shape[1::-1]
    places = restored(png, names, {name: i for i, name in enumerate(names)})
    shown = np.asarray(cv2.resize(places, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    colors = np.zeros((IGNORED + 1, 3))
    colors[: len(names)] = [color_of(name) for name in names]
    mixed = image * (1 - _WEIGHT) + colors[shown] * _WEIGHT
    canvas = np.where(shown[..., None] == IGNORED, image, mixed.astype(np.uint8))
    return with_words(canvas, list(_named(shown, names)), _LETTERS)


def _named(shown: LabelMap, names: Sequence[str]) -> Iterator[Words]:
    """Yield the name of each class where it is widest."""
    for place, name in enumerate(names):
        mine = np.pad((shown == place).astype(np.uint8), 1)
        if mine.mean() < _LEAST_NAMED:
            continue
        inside = cv2.distanceTransform(mine, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        yield Words(name, (int(x), int(y)), _WHITE, _BLACK, centered=True)
