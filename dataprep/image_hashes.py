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
_GRAY: Final = np.array([19595, 38470, 7471])
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
    return Look(
        phash=perceptual_hash(small),
        colors=_means(small, COLOR_GRID).tobytes(),
        gray=_means(_gray(small)[..., None], GRAY_GRID).tobytes(),
    )


def perceptual_hash(small: NDArray[np.uint8]) -> str:
    """Return imagehash's ``phash`` of an RGB image (32, 32, 3) as 16 hexadecimal digits.

    Each of the 8 by 8 lowest frequencies gives one bit: whether it is above their median.
    imagehash's own resizing to 32 by 32 changes no more bits than another JPEG quality does.
    """
    low = np.round(
        _LOW_FREQUENCIES @ _gray(small) @ _LOW_FREQUENCIES.T, 6
    ).ravel()  # no noise if flat
    median = np.sort(low)[31:33].mean()
    return np.packbits(low > median).tobytes().hex()


def _gray(small: NDArray[np.uint8]) -> NDArray[np.int64]:
    gray: NDArray[np.int64] = (small @ _GRAY + (1 << 15)) >> 16
    return gray


def _means(small: NDArray[np.generic], side: int) -> NDArray[np.uint8]:
    """Return the mean of each cell of a grid: (32, 32, channels) to (side, side, channels)."""
    cell = _GRID_SIDE // side
    means = small.reshape(side, cell, side, cell, -1).mean((1, 3))
    return np.asarray(np.round(means), np.uint8)
