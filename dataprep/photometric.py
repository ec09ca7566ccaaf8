"""Photometric distortion of SSD (arXiv:1512.02325), as mmsegmentation applies it.

Brightness, contrast, saturation and hue change one after the other, each in half of the images;
contrast comes second or last. Every operation rounds to bytes, as mmsegmentation's do.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.images import Pixels
from dataprep.randomness import rng_of

BRIGHTNESS: Final = 32.0
"Largest change of brightness, of 255."
FACTORS: Final = (0.5, 1.5)
"Of contrast and of saturation."
HUE: Final = 18
"Largest change of hue, in steps of two degrees."
_NUM_HUES: Final = 180


def distorted(pixels: Pixels, *, seed: int, step: int, slot: int) -> Pixels:
    """Return an image with other brightness, contrast, saturation and hue.

    A pure function of the arguments.

    Args:
        pixels: RGB, (height, width, 3).
        seed: of the recipe.
        step: optimizer step.
        slot: of the sample in the batch.
    """
    rng = rng_of(seed, step, slot, "photometric")
    applied = rng.random(4) < 0.5
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast, saturation = rng.uniform(*FACTORS, 2)
    hue, contrast_first = int(rng.integers(-HUE, HUE + 1)), rng.random() < 0.5
    if applied[0]:
        pixels = scaled(pixels, 1.0, brightness)
    if applied[1] and contrast_first:
        pixels = scaled(pixels, contrast, 0.0)
    if applied[2] or applied[3]:
        pixels = colored(pixels, saturation if applied[2] else 1.0, hue if applied[3] else 0)
    if applied[1] and not contrast_first:
        pixels = scaled(pixels, contrast, 0.0)
    return pixels


def scaled(pixels: Pixels, factor: float, offset: float) -> Pixels:
    """Return pixels times ``factor`` plus ``offset``, cut off to whole numbers of 0-255."""
    table = np.clip(np.arange(256) * factor + offset, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table), np.uint8)


def colored(pixels: Pixels, saturation: float, hue: int) -> Pixels:
    """Return pixels with HSV's saturation multiplied and its hue turned by steps of two degrees."""
    hsv: NDArray[np.uint8] = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), np.uint8)
    hues = ((np.arange(256) + hue) % _NUM_HUES).astype(np.uint8)
    saturations = np.clip(np.arange(256) * saturation, 0, 255).astype(np.uint8)
    same = np.arange(256, dtype=np.uint8)
    tables = np.stack([hues, saturations, same], axis=1)[None]
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2RGB), np.uint8)
