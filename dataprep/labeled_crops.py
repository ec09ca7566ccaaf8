"""Crops of an image with its label map, as segmentation is trained (mmsegmentation's pipeline).

The image is resized by a random ratio, cut at a random place and mirrored. A cut in which one class
covers nearly all of the labeled pixels is drawn again, a few times at most.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataprep.randomness import rng_of
from dataprep.scale_jitter import ScaledCut

MOST_DRAWS: Final = 10
"Cuts that are drawn for a crop; the last one is taken whatever it shows."
LONGEST: Final = 4.0
"Longest side of a resized image, as a multiple of what its shorter side would be."


def labeled_crop(
    labels: NDArray[np.uint8],
    size: int,
    ratios: tuple[float, float],
    max_fraction: float,
    *,
    ignored: int,
    flip: bool,
    seed: int,
    step: int,
    slot: int,
) -> ScaledCut:
    """Draw what becomes of a training image: a pure function of the arguments.

    Args:
        labels: (height, width) of the image.
        size: side of the square crop.
        ratios: smallest and largest length of the image's shorter side, as multiples of ``size``.
        max_fraction: of the labeled pixels of a crop that one class should cover at most.
        ignored: label that does not count as a class.
        flip: whether half of the images are mirrored.
        seed: of the recipe.
        step: optimizer step.
        slot: of the sample in the batch.
    """
    rng = rng_of(seed, step, slot)
    ratio, is_flipped, draws = rng.uniform(*ratios), rng.random() < 0.5, rng.random((MOST_DRAWS, 2))
    width, height = resized(labels.shape[1], labels.shape[0], size * ratio)
    cut = ScaledCut(width, height, 0, 0, size, flip=False)
    for across, down in draws:
        left, top = (int(u * (max(n - size, 0) + 1)) for u, n in ((across, width), (down, height)))
        cut = ScaledCut(width, height, left, top, size, bool(is_flipped) and flip)
        if (
            max_fraction >= 1
            or _largest_fraction(cut.labels(labels, ignored), ignored) < max_fraction
        ):
            break
    return cut


def resized(width: int, height: int, shorter: float) -> tuple[int, int]:
    """Return the size of an image whose shorter side becomes ``shorter``.

    Of an extreme aspect ratio the longer side decides: it becomes ``LONGEST`` times as long.
    """
    factor = min(shorter / min(width, height), LONGEST * shorter / max(width, height))
    return max(round(width * factor), 1), max(round(height * factor), 1)


def _largest_fraction(labels: NDArray[np.uint8], ignored: int) -> float:
    """Return the part of the labeled pixels that has the most frequent class; 1 without any."""
    counts = np.bincount(labels.ravel(), minlength=ignored + 1)
    counts[ignored] = 0
    return float(counts.max() / counts.sum()) if counts.any() else 1.0
