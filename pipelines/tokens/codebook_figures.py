"""Figures of a codebook: images beside the maps of their codes, and patches grouped by code."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

_GAP: Final = 2
_GOLDEN_RATIO: Final = 0.618034


def draw_code_maps(crops: NDArray[np.uint8], codes: NDArray[np.int64], path: Path) -> None:
    """Draw each image beside the map of its codes, with one color per code.

    Args:
        crops: (B, H, H, 3) RGB.
        codes: (B, N), N a square number.
        path: PNG file to write.
    """
    side = crops.shape[1]
    maps = map(color_map, codes)
    wide = [cv2.resize(m, (side, side), interpolation=cv2.INTER_NEAREST) for m in maps]
    pairs = [_beside([crop, colors]) for crop, colors in zip(crops, wide, strict=True)]
    columns = max(round((len(pairs) / 2) ** 0.5), 1)
    _write(path, _rows(pairs, columns))


def draw_code_patches(
    crops: NDArray[np.uint8],
    codes: NDArray[np.int64],
    path: Path,
    *,
    num_codes: int,
    patches_per_code: int,
) -> None:
    """Draw one row of patches for each of the most used codes.

    Args:
        crops: (B, H, H, 3) RGB.
        codes: (B, N), N a square number.
        path: PNG file to write.
        num_codes: largest number of rows.
        patches_per_code: largest number of patches in a row.
    """
    grid = round(codes.shape[1] ** 0.5)
    patch = crops.shape[1] // grid
    flat = codes.reshape(-1)
    used, count = np.unique(flat, return_counts=True)
    rows = []
    for code in used[np.argsort(-count, kind="stable")][:num_codes]:
        patches = [np.full((patch, patch, 3), 255, np.uint8)] * patches_per_code
        for i, index in enumerate(np.flatnonzero(flat == code)[:patches_per_code]):
            image, position = divmod(int(index), codes.shape[1])
            y, x = (patch * v for v in divmod(position, grid))
            patches[i] = crops[image, y : y + patch, x : x + patch]
        rows.append(_beside(patches))
    _write(path, _rows(rows, 1))


def color_map(codes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the codes (N,) of an image, N a square number, as an image of N colored pixels."""
    grid = round(len(codes) ** 0.5)
    return _colors(codes).reshape(grid, grid, 3)


def _colors(codes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return one RGB color per code; steps of the golden ratio keep nearby codes distinct."""
    hue = (codes * _GOLDEN_RATIO % 1 * 180).astype(np.uint8)
    bright = (150 + codes % 3 * 50).astype(np.uint8)
    hsv = np.stack([hue, np.full_like(hue, 160), bright], axis=-1)
    return np.asarray(cv2.cvtColor(hsv.reshape(1, -1, 3), cv2.COLOR_HSV2RGB), np.uint8)


def _beside(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    padded = [np.pad(p, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for p in images]
    return np.concatenate(padded, axis=1)


def _rows(images: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    blank = np.full_like(images[0], 255)
    filled = images + [blank] * (-len(images) % columns)
    rows = [np.concatenate(filled[i : i + columns], axis=1) for i in range(0, len(filled), columns)]
    return np.concatenate(rows)


def _write(path: Path, rgb: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
