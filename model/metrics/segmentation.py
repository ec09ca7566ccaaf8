"""Mean intersection over union of label maps, over a whole set of images; torchmetrics counts.

The IoU of a class is the number of pixels that have it in both maps, over that of pixels that have
it in one of them. Pixels are added up over all images. A class that is in no map is left out of the
mean. Pixels that are ignored in the true map count nowhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

LabelMap = NDArray[np.uint8]
METRICS: Final = ("mIoU", "pixel_accuracy", "class_accuracy")
"Names of the metrics."


@dataclass(frozen=True)
class SegmentationScore:
    """How well the label maps of a set of images are predicted."""

    metrics: dict[str, float]
    "``mIoU``; ``pixel_accuracy``; ``class_accuracy``, the mean over the classes; all 0-1."
    by_class: dict[str, float]
    "IoU of each class that is in some map, by name."
    confusion: NDArray[np.int64]
    "(C, C), number of pixels by true class (rows) and predicted class."


def segmentation_score(
    pairs: Iterable[tuple[LabelMap, LabelMap]], names: Sequence[str], ignored: int
) -> SegmentationScore:
    """Return the score of predicted label maps.

    Args:
        pairs: predicted and true map of each image, (height, width) of class numbers.
        names: of the C classes.
        ignored: label of pixels in the true map that count nowhere.

    Raises:
        ValueError: the maps of an image have different sizes, or no pixel has a class.
    """
    from torchmetrics.classification import MulticlassJaccardIndex

    counter = MulticlassJaccardIndex(
        num_classes=len(names), average="none", ignore_index=ignored, validate_args=False
    )
    for number, (found, true) in enumerate(pairs):
        if found.shape != true.shape:
            raise ValueError(
                f"image {number}: the predicted map has {found.shape} pixels, the true one "
                f"{true.shape}"
            )
        counter.update(torch.from_numpy(found).long(), torch.from_numpy(true).long())
    confusion = counter.confmat.numpy().astype(np.int64)
    if not confusion.any():
        raise ValueError("no pixel of the true label maps has a class; nothing can be scored")
    right, true_pixels = confusion.diagonal(), confusion.sum(axis=1)
    is_present = (true_pixels + confusion.sum(axis=0)) > 0
    by_class = {
        name: float(iou)
        for name, iou, present in zip(names, counter.compute(), is_present, strict=True)
        if present
    }
    is_true = true_pixels > 0
    values = (
        np.mean(list(by_class.values())),
        right.sum() / confusion.sum(),
        (right[is_true] / true_pixels[is_true]).mean(),
    )
    metrics = {name: float(value) for name, value in zip(METRICS, values, strict=True)}
    return SegmentationScore(metrics, by_class, confusion)
