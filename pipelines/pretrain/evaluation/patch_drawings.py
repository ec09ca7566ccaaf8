"""Drawings of patches: what is masked, codes as the mean patches that have them, attention.

All images are (H, H, 3) uint8 RGB of N patches in a square grid, row by row.
"""

import math
from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_MASKED: Final = (128, 128, 128)
_UNKNOWN: Final = (255, 0, 255)
"Color of a code that none of the patches has."
_DARKEST: Final = 0.15
"Brightness that is left of a patch without attention."


def to_patches(images: Pixels, num_patches: int) -> Pixels:
    """Cut images (B, H, H, 3) into patches (B, N, P, P, 3)."""
    grid = math.isqrt(num_patches)
    side = images.shape[1] // grid
    cut = images.reshape(len(images), grid, side, grid, side, 3)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), num_patches, side, side, 3)


def from_patches(patches: Pixels) -> Pixels:
    """Join patches (N, P, P, 3) to an image (H, H, 3)."""
    grid, side = math.isqrt(len(patches)), patches.shape[1]
    joined = patches.reshape(grid, grid, side, side, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(joined.reshape(grid * side, grid * side, 3))


class MeanPatches:
    """The mean of the patches that have a code, for each code."""

    def __init__(self, batches: Iterable[tuple[Pixels, Ints]], num_codes: int) -> None:
        """Average the patches of images.

        Args:
            batches: images (B, H, H, 3) with the codes (B, N) of their patches.
            num_codes: number of codes of the codebook, K.
        """
        self.counts = np.zeros(num_codes, np.int64)
        "(K,) number of patches of each code."
        total: NDArray[np.int64] | None = None
        for images, codes in batches:
            patches = to_patches(images, codes.shape[1])
            patches = patches.reshape(-1, *patches.shape[2:])
            if total is None:
                total = np.zeros((num_codes, *patches.shape[1:]), np.int64)
            order = np.argsort(codes, axis=None)
            found, starts = np.unique(codes.ravel()[order], return_index=True)
            total[found] += np.add.reduceat(patches[order].astype(np.int32), starts)
            self.counts += np.bincount(codes.ravel(), minlength=num_codes)
        if total is None:
            raise ValueError("there are no images to average; give at least one")
        means = total / np.maximum(self.counts, 1)[:, None, None, None]
        self.patches = np.rint(means).astype(np.uint8)
        "(K, P, P, 3) RGB."
        self.patches[self.counts == 0] = _UNKNOWN

    def drawn(self, crop: Pixels, masked: Bools, codes: Ints) -> Pixels:
        """Return an image whose masked patches are the mean patches of codes.

        Args:
            crop: (H, H, 3).
            masked: (N,), True = masked.
            codes: (N,), of which those of masked patches count.
        """
        patches = to_patches(crop[None], len(masked))[0].copy()
        patches[masked] = self.patches[codes[masked]]
        return from_patches(patches)


def hidden(crop: Pixels, masked: Bools) -> Pixels:
    """Return an image whose masked patches are gray."""
    patches = to_patches(crop[None], len(masked))[0].copy()
    patches[masked] = _MASKED
    return from_patches(patches)


def with_pixels(crop: Pixels, masked: Bools, values: NDArray[np.float32]) -> Pixels:
    """Return an image whose masked patches are predicted pixels.

    Args:
        crop: (H, H, 3).
        masked: (N,), True = masked.
        values: (M, P * P * 3) pixels of the M masked patches, normalized by mean and standard
            deviation of the true patch, which the prediction leaves open.
    """
    patches = to_patches(crop[None], len(masked))[0].copy()
    true = patches[masked].reshape(len(values), -1).astype(np.float32)
    found = values * true.std(1, keepdims=True) + true.mean(1, keepdims=True)
    patches[masked] = found.clip(0, 255).astype(np.uint8).reshape(-1, *patches.shape[1:])
    return from_patches(patches)


def attended(crop: Pixels, weights: NDArray[np.float32]) -> Pixels:
    """Return an image that is darker where a position attends less to it.

    Args:
        crop: (H, H, 3).
        weights: (N,) attention to each patch; the largest one keeps its brightness.
    """
    grid = math.isqrt(len(weights))
    relative = (weights / max(float(weights.max()), 1e-12)).reshape(grid, grid)
    size = (crop.shape[1], crop.shape[0])
    smooth = cv2.resize(relative.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    brightness = _DARKEST + (1 - _DARKEST) * smooth.clip(0, 1)
    return np.asarray(np.rint(crop * brightness[..., None]), np.uint8)
