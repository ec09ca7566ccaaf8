"""Images with label maps → pixels of the network's size, and the classes of these pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pyarrow as pa
import torch

from dataprep.images import Pixels, decode_stored
from dataprep.labeled_crops import labeled_crop, resized
from dataprep.photometric import distorted
from dataprep.scale_jitter import PADDING
from dataprep.tasks.label_classes import IGNORED
from dataprep.tasks.label_maps import LabelMap
from dataprep.tasks.stored_label_maps import restored
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.task import Draw


@dataclass(frozen=True)
class CropParams:
    """How training images are cut and changed."""

    ratios: tuple[float, float]
    "Smallest and largest length of an image's shorter side, as multiples of the crop's."
    max_fraction: float
    "Of a crop's labeled pixels that one class should cover at most."
    distort: bool
    "Whether brightness, contrast, saturation and hue change."


def training_crops(
    rows: pa.Table, labels: Mapping[str, int], size: int, params: CropParams, draw: Draw
) -> Iterator[tuple[Pixels, LabelMap]]:
    """Yield a crop (S, S, 3) of each example and its classes (S, S), ``IGNORED`` in the padding.

    Args:
        rows: columns of ``dataprep.schemas.EXAMPLES``.
        labels: number of each class; others are ignored.
        size: S.
        params: how they are cut and changed.
        draw: what random changes depend on.
    """
    for row, slot in zip(rows.to_pylist(), draw.slots.tolist(), strict=True):
        image = decode_stored(row["images"][0], row["example_id"])
        classes = restored(row["label_map"], row["labels"], labels)
        random = {"seed": draw.seed, "step": draw.step, "slot": slot}
        cut = labeled_crop(
            classes,
            size,
            params.ratios,
            params.max_fraction,
            ignored=IGNORED,
            flip=draw.flip,
            **random,
        )
        pixels = cut.pixels(image)
        if params.distort:
            pixels = distorted(pixels, **random)
        yield pixels, cut.labels(classes, IGNORED)


def evaluated_images(rows: pa.Table, shorter: float) -> Iterator[Pixels]:
    """Yield each example's image, whose shorter side becomes ``shorter``."""
    for row in rows.to_pylist():
        yield evaluated_image(decode_stored(row["images"][0], row["example_id"]), shorter)


def evaluated_image(image: Pixels, shorter: float) -> Pixels:
    """Return an image (height, width, 3) whose shorter side becomes ``shorter``."""
    width, height = resized(image.shape[1], image.shape[0], shorter)
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def batch_of(
    batch: TaskBatch, images: Sequence[Pixels], annotated: Sequence[tuple[int, int]]
) -> TaskBatch:
    """Return a batch with the pixels of images.

    Args:
        batch: without them.
        images: of :func:`evaluated_image`.
        annotated: height and width of the label map of each.
    """
    return replace(
        batch,
        pixels=torch.from_numpy(padded(images)[:, None]),
        seen=[(image.shape[0], image.shape[1]) for image in images],
        annotated=annotated,
    )


def padded(images: Sequence[Pixels]) -> Pixels:
    """Return images in one array (B, H, W, 3), padded at right and bottom."""
    height, width = (max(image.shape[i] for image in images) for i in (0, 1))
    together = np.full((len(images), height, width, 3), PADDING, np.uint8)
    for square, image in zip(together, images, strict=True):
        square[: image.shape[0], : image.shape[1]] = image
    return together
