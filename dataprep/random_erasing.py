"""Random erasing: noise in a random box of a crop, as timm's RandomErasing in its pixel mode.

timm erases in normalized pixels, with noise of mean 0 and deviation 1. Here the noise has the mean
and the deviation of ImageNet's colors before normalization, and is rounded and cut off to a byte:
one value in thirty lies outside.
"""

import math
from typing import Final

import numpy as np

from dataprep.images import Pixels

_MIN_AREA: Final = 0.02
_MAX_AREA: Final = 1 / 3
"Fractions of the crop's area."
_LOG_ASPECT: Final = math.log(1 / 0.3)
"Largest absolute logarithm of a box's aspect ratio."
_ATTEMPTS: Final = 10
_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32) * 255
_STD: Final = np.array([0.229, 0.224, 0.225], np.float32) * 255


def erase(pixels: Pixels, probability: float, rng: np.random.Generator) -> None:
    """Fill a box of RGB ``pixels`` (height, width, 3) with noise, in place.

    Args:
        pixels: the crop.
        probability: that a box is erased at all.
        rng: a generator of this crop alone.
    """
    if rng.random() >= probability:
        return
    height, width = pixels.shape[:2]
    for _ in range(_ATTEMPTS):
        area = height * width * (_MIN_AREA + (_MAX_AREA - _MIN_AREA) * rng.random())
        aspect = math.exp(_LOG_ASPECT * (2 * rng.random() - 1))
        box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if box_height < height and box_width < width:
            top = int(rng.random() * (height - box_height + 1))
            left = int(rng.random() * (width - box_width + 1))
            noise = rng.standard_normal((box_height, box_width, 3), np.float32) * _STD + _MEAN
            box = np.rint(noise).clip(0, 255).astype(np.uint8)
            pixels[top : top + box_height, left : left + box_width] = box
            return
