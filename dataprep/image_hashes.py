"""Perceptual hash and color grid of an image, by which copies and similar images are found."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

COLOR_GRID: Final = 4
"Number of rows and of columns of the color grid."
_GRID_SIDE: Final = 32
_GRAY: Final = np.array([19595, 38470, 7471])
"Weights of red, green and blue in Pillow's gray, in 65536ths."
_LOW_FREQUENCIES: Final = np.cos(np.pi / 64 * np.outer(np.arange(8), 2 * np.arange(_GRID_SIDE) + 1))
"Lowest frequencies of the discrete cosine transform (II), unscaled: (8, 32)."


def look_of(pixels: NDArray[np.uint8]) -> tuple[str, bytes]:
    """Return the perceptual hash and the color grid of an RGB image (height, width, 3)."""
    small = np.asarray(
        cv2.resize(pixels, (_GRID_SIDE, _GRID_SIDE), interpolation=cv2.INTER_AREA), np.uint8
    )
    cell = _GRID_SIDE // COLOR_GRID
    means = small.reshape(COLOR_GRID, cell, COLOR_GRID, cell, 3).mean((1, 3))
    return perceptual_hash(small), np.round(means).astype(np.uint8).tobytes()


def perceptual_hash(small: NDArray[np.uint8]) -> str:
    """Return imagehash's ``phash`` of an RGB image (32, 32, 3) as 16 hexadecimal digits.

    Each of the 8 by 8 lowest frequencies gives one bit: whether it is above their median.
    imagehash's own resizing to 32 by 32 changes no more bits than another JPEG quality does.
    """
    gray = (small @ _GRAY + (1 << 15)) >> 16
    low = np.round(_LOW_FREQUENCIES @ gray @ _LOW_FREQUENCIES.T, 6).ravel()  # no noise if flat
    median = np.sort(low)[31:33].mean()
    return np.packbits(low > median).tobytes().hex()
