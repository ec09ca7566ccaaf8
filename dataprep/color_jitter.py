"""Color jitter of crops, with the arithmetic of torchvision's ColorJitter on Pillow images.

Brightness, contrast and saturation change one after the other in a random order. Each operation
moves every pixel away from, or towards, a reference (black, the mean gray, the pixel's own gray)
and stores whole numbers, cut off rather than rounded, as Pillow does.
"""

from itertools import permutations
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.images import Pixels

NUM_UNIFORMS: Final = 4
"Random numbers that a crop's jitter takes: a factor for each operation, and the order."
_ORDERS: Final = tuple(permutations(range(3)))
_LEVELS: Final = np.arange(256, dtype=np.float32)
_GRAY: Final = np.array([[19595, 38470, 7471]], np.float32)
"Weights of Pillow's gray in units of 1/65536; sums of weighted bytes are exact in float32."


def jitter_color(pixels: Pixels, strength: float, uniforms: NDArray[np.float64]) -> Pixels:
    """Change brightness, contrast and saturation by up to ``strength``, in a random order.

    Args:
        pixels: RGB, (height, width, 3).
        strength: largest relative change of each; 0 changes nothing.
        uniforms: ``NUM_UNIFORMS`` random numbers in [0, 1).
    """
    factors = 1 + strength * (2 * np.asarray(uniforms[:3]) - 1)
    operations = (adjust_brightness, adjust_contrast, adjust_saturation)
    for number in _ORDERS[int(uniforms[3] * len(_ORDERS))]:
        pixels = operations[number](pixels, float(factors[number]))
    return pixels


def adjust_brightness(pixels: Pixels, factor: float) -> Pixels:
    """Move pixels from black by ``factor``."""
    return _looked_up(pixels, 0, factor)


def adjust_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Move pixels from the image's mean gray by ``factor``."""
    return _looked_up(pixels, int(_gray(pixels).mean(dtype=np.float64) + 0.5), factor)


def adjust_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Move each pixel from its own gray by ``factor``."""
    gray = _gray(pixels)
    channels = []
    for channel in cv2.split(pixels):
        values = channel.astype(np.float32)
        values -= gray
        values *= np.float32(factor)
        values += gray
        channels.append(_cut_off(values))
    return np.asarray(cv2.merge(channels), np.uint8)


def _looked_up(pixels: Pixels, reference: int, factor: float) -> Pixels:
    table = _cut_off(np.float32(reference) + np.float32(factor) * (_LEVELS - reference))
    return np.asarray(cv2.LUT(pixels, table), np.uint8)


def _gray(pixels: Pixels) -> NDArray[np.float32]:
    """Return Pillow's gray of each pixel, (height, width), whole numbers."""
    gray = cv2.transform(pixels.astype(np.float32), _GRAY)
    gray += 32768
    gray *= 1 / 65536
    return np.asarray(np.floor(gray, out=gray), np.float32)


def _cut_off(values: NDArray[np.float32]) -> Pixels:
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
