"""What a model says of an input: candidates, objects of an image, and classes of its pixels."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataprep.tasks.run_lengths import mask_of
from dataprep.tasks.stored_label_maps import restored


class Candidate(NamedTuple):
    """One of several answers, labels or words."""

    label: str
    score: float
    "Probability; of a regression the value itself."


@dataclass(frozen=True)
class DetectedObject:
    """An object of an image."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    "Left, top, width and height in pixels of the image as it was given, upright."
    size: tuple[int, int]
    "Width and height of the image."
    run_lengths: str | None = None
    "The mask as COCO's text of run lengths; None if the model finds boxes alone."

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Return which pixels (height, width) belong to the object; None without a mask."""
        return None if self.run_lengths is None else mask_of(self.run_lengths, *self.size)


@dataclass(frozen=True)
class SegmentedImage:
    """The class of each pixel of an image."""

    labels: tuple[str, ...]
    "The classes in the image, most frequent first."
    fractions: tuple[float, ...]
    "Part of the pixels that has each of them."
    png: bytes
    "Gray PNG of the image's size: each pixel is the place of its class among ``labels``."

    @property
    def label_map(self) -> NDArray[np.uint8]:
        """Return (height, width): the place of each pixel's class among ``labels``."""
        return restored(self.png, self.labels, {name: i for i, name in enumerate(self.labels)})
