"""Perceptual hash, color grid and gray grid of an image, by which near duplicates are found."""

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

COLOR_GRID: Final = 4
"Number of rows and of columns of the color grid."
GRAY_GRID: Final = 16
"Number of rows and of columns of the gray grid."
_GRID_SIDE: Final = 32
_GRAY: Final = np.array([19595.0, 38470.0, 7471.0])
"Weights of red, green and blue in Pillow's gray, in 65536ths."
_LOW_FREQUENCIES: Final = np.cos(np.pi / 64 * np.outer(np.arange(8), 2 * np.arange(_GRID_SIDE) + 1))
"Lowest frequencies of the discrete cosine transform (II), unscaled: (8, 32)."


class Look(NamedTuple):
    """What an image looks like, in a few hundred bytes."""

    phash: str
    "Perceptual hash, 16 hexadecimal digits."
    colors: bytes
    "Mean RGB of each cell of the color grid, row by row, one byte per channel."
    gray: bytes
    "Mean gray of each cell of the gray grid, row by row, one byte each."


def look_of(pixels: NDArray[np.uint8]) -> Look:
    """Return the look of an RGB image (height, width, 3)."""
    small = np.asarray(
        cv2.resize(pixels, (_GRID_SIDE, _GRID_SIDE), interpolation=cv2.INTER_AREA), np.uint8
    )
    gray = _gray(small)
    # Cells of 8 by 8: OpenCV adds integers and rounds as NumPy does, half to even.
    colors = cv2.resize(small, (COLOR_GRID, COLOR_GRID), interpolation=cv2.INTER_AREA)
    return Look(_perceptual_hash(gray), colors.tobytes(), _means(gray).tobytes())


def perceptual_hash(small: NDArray[np.uint8]) -> str:
    """Return imagehash's ``phash`` of an RGB image (32, 32, 3) as 16 hexadecimal digits.

    Each of the 8 by 8 lowest frequencies gives one bit: whether it is above their median.
    imagehash's own resizing to 32 by 32 changes no more bits than another JPEG quality does.
    """
    return _perceptual_hash(_gray(small))


def _perceptual_hash(gray: NDArray[np.float64]) -> str:
    low = np.round(_LOW_FREQUENCIES @ gray @ _LOW_FREQUENCIES.T, 6).ravel()  # no noise if flat
    middle = np.sort(low)[31:33]
    return np.packbits(low > (middle[0] + middle[1]) / 2).tobytes().hex()


def _gray(small: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return gray values (32, 32); the arithmetic is exact, as all values are whole numbers."""
    gray: NDArray[np.float64] = np.floor((small @ _GRAY + (1 << 15)) / (1 << 16))
    return gray


def _means(gray: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the mean of each cell of the gray grid (16, 16)."""
    rows = gray[::2] + gray[1::2]
    return np.asarray(np.round((rows[:, ::2] + rows[:, 1::2]) / 4), np.uint8)
