"""Large-scale jitter (arXiv:2012.07177): an image at a random scale, cut and padded to a square.

The scale is relative to that at which the image just fits into the square. A larger image is cut at
a random place, a smaller one is padded at right and bottom. Boxes and masks go with the pixels.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.images import Pixels
from dataprep.randomness import rng_of

PADDING: Final = 128
"Value of the padding: nearly the mean of pixels in 0-255."

Boxes = NDArray[np.float32]
"(n, 4): left, top, right and bottom in pixels."


@dataclass(frozen=True)
class ScaledCut:
    """What becomes of an image: resized, cut, mirrored, padded to a square, in this order."""

    width: int
    "Of the resized image, before the cut."
    height: int
    "Of the resized image, before the cut."
    left: int
    "Columns that are cut away at the left."
    top: int
    "Rows that are cut away at the top."
    size: int
    "Side of the square."
    flip: bool
    "Whether left and right of what is left are exchanged."

    @property
    def seen(self) -> tuple[int, int]:
        """Return width and height of what is left of the image within the square."""
        return min(self.width - self.left, self.size), min(self.height - self.top, self.size)

    def pixels(self, image: Pixels) -> Pixels:
        """Return the square (size, size, 3) of an image: area down, bicubic interpolation up."""
        shrinks = self.height < image.shape[0] or self.width < image.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        resized = cv2.resize(image, (self.width, self.height), interpolation=method)
        square = np.full((self.size, self.size, 3), PADDING, np.uint8)
        square[: self.seen[1], : self.seen[0]] = self._cut(resized)
        return square

    def boxes(self, boxes: Boxes, width: int, height: int) -> Boxes:
        """Return boxes (n, 4) of an image of this size in the square; empty where cut away."""
        scale = np.array([self.width / width, self.height / height] * 2, np.float32)
        moved = boxes * scale - np.array([self.left, self.top] * 2, np.float32)
        moved = moved.clip(0, np.array([*self.seen] * 2, np.float32))
        if self.flip:
            moved[:, [0, 2]] = self.seen[0] - moved[:, [2, 0]]
        return moved.astype(np.float32)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the square (size, size) of a mask of the whole image, at least half covered."""
        values = mask.astype(np.uint8) * 255
        shrinks = self.height < mask.shape[0] or self.width < mask.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(values, (self.width, self.height), interpolation=method)
        square = np.zeros((self.size, self.size), bool)
        square[: self.seen[1], : self.seen[0]] = self._cut(resized) > 127
        return square

    def labels(self, labels: NDArray[np.uint8], padding: int) -> NDArray[np.uint8]:
        """Return the square (size, size) of labels (height, width): the nearest pixel's."""
        method = cv2.INTER_NEAREST_EXACT
        resized = cv2.resize(labels, (self.width, self.height), interpolation=method)
        square = np.full((self.size, self.size), padding, np.uint8)
        square[: self.seen[1], : self.seen[0]] = self._cut(np.asarray(resized, np.uint8))
        return square

    def _cut(self, resized: Pixels) -> Pixels:
        width, height = self.seen
        cut = resized[self.top : self.top + height, self.left : self.left + width]
        return cut[:, ::-1] if self.flip else cut


def jittered(
    width: int,
    height: int,
    size: int,
    scales: tuple[float, float],
    *,
    flip: bool,
    seed: int,
    step: int,
    slot: int,
) -> ScaledCut:
    """Draw what becomes of a training image: a pure function of the arguments.

    Args:
        width: of the image.
        height: of the image.
        size: side of the square.
        scales: smallest and largest scale; ViTDet has 0.1 and 2.
        flip: whether half of the images are mirrored.
        seed: of the recipe.
        step: optimizer step.
        slot: of the sample in the batch.
    """
    rng = rng_of(seed, step, slot)
    scale, is_flipped, across, down = rng.uniform(*scales), rng.random() < 0.5, *rng.random(2)
    new = _scaled(width, height, size * scale)
    left, top = (int(u * (max(n - size, 0) + 1)) for u, n in zip((across, down), new, strict=True))
    return ScaledCut(*new, left, top, size, bool(is_flipped) and flip)


def fitted(width: int, height: int, size: int, *, flip: bool = False) -> ScaledCut:
    """Return what becomes of an evaluated image: its longer side is that of the square."""
    return ScaledCut(*_scaled(width, height, size), 0, 0, size, flip)


def _scaled(width: int, height: int, longest: float) -> tuple[int, int]:
    factor = longest / max(width, height)
    return max(round(width * factor), 1), max(round(height * factor), 1)
