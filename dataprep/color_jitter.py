"""Color jitter of crops, with the arithmetic of torchvision's ColorJitter on Pillow images.

Brightness, contrast and saturation change one after the other in a random order. Each operation
moves every pixel away from, or towards, a reference (black, the mean gray, the pixel's own gray)
and stores whole numbers, cut off rather than rounded, as Pillow does.

OpenCV blends bytes several times faster than float arrays are computed, but it rounds. With
``_CUT_OFF`` added, rounding is cutting off, unless a result lies just under a whole number. There
are so few different results of an operation that all of them are tested beforehand; where one of
them lies so close, Pillow's arithmetic itself is computed.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.images import Pixels

NUM_UNIFORMS: Final = 4
"Random numbers that a crop's jitter takes: a factor for each operation, and the order."
_ORDERS: Final = np.array(list(permutations(range(3))), np.int64)
_LEVELS: Final = np.arange(256)
_DIFFERENCES: Final = np.arange(-255, 256)
"Differences between a channel and the gray of its pixel."
_GRAY: Final = np.array([[19595, 38470, 7471, 32768]], np.float32) / 65536
"Weights of Pillow's gray, and a half: sums of weighted bytes are exact in float32."
_MAX_FACTOR: Final = 2.0
"Largest factor of OpenCV's blends: with larger ones they round more, and huge results overflow."
_BLEND_ERROR: Final = 8e-5
"More than the error of OpenCV's blends: five roundings of float32 numbers under 512."
_CUT_OFF: Final = _BLEND_ERROR - 0.5
"Added to a blend, so that rounding cuts off."


def jitter_color(
    pixels: Pixels, strength: float, uniforms: NDArray[np.float64], out: Pixels | None = None
) -> Pixels:
    """Change brightness, contrast and saturation by up to ``strength``, in a random order.

    Args:
        pixels: RGB, (height, width, 3).
        strength: largest relative change of each; 0 changes nothing.
        uniforms: ``NUM_UNIFORMS`` random numbers in [0, 1).
        out: receives the result, and may be ``pixels``; None makes a new array.
    """
    orders, factors = drawn_operations(strength, np.asarray(uniforms)[None])
    return apply_operations(pixels, orders[0].tolist(), factors[0].tolist(), out)


def apply_operations(
    pixels: Pixels, operations: Sequence[int], factors: Sequence[float], out: Pixels | None = None
) -> Pixels:
    """Apply :func:`drawn_operations` of one crop.

    Args:
        pixels: RGB, (height, width, 3).
        operations: numbers of the operations in their order.
        factors: factor of each operation.
        out: receives the result, and may be ``pixels``; None makes a new array.
    """
    for number, factor in zip(operations, factors, strict=True):
        pixels = out = _OPERATIONS[number](pixels, factor, out)
    return pixels


def drawn_operations(
    strength: float, uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the operations of B crops, (B, 3) in their order, and the factor of each, (B, 3).

    Brightness is 0, contrast 1 and saturation 2.

    Args:
        strength: as in :func:`jitter_color`.
        uniforms: (B, ``NUM_UNIFORMS``).
    """
    factors = 1 + strength * (2 * uniforms[:, :3] - 1)
    orders = _ORDERS[(uniforms[:, 3] * len(_ORDERS)).astype(np.int64)]
    return orders, np.take_along_axis(factors, orders, 1).astype(np.float32)


def adjust_brightness(pixels: Pixels, factor: float, out: Pixels | None = None) -> Pixels:
    """Move pixels from black by ``factor``."""
    return _moved_from(0, pixels, factor, out)


def adjust_contrast(pixels: Pixels, factor: float, out: Pixels | None = None) -> Pixels:
    """Move pixels from the image's mean gray by ``factor``."""
    gray = _gray(pixels)
    # Not cv2.mean, which multiplies by 1 / size: a mean of exactly a half may come out as less.
    return _moved_from(int(cv2.sumElems(gray)[0] / gray.size + 0.5), pixels, factor, out)


def adjust_saturation(pixels: Pixels, factor: float, out: Pixels | None = None) -> Pixels:
    """Move each pixel from its own gray by ``factor``."""
    gray = cv2.cvtColor(_gray(pixels), cv2.COLOR_GRAY2RGB)
    return moved_from_image(gray, pixels, factor, out)


def moved_from_image(
    reference: Pixels, pixels: Pixels, factor: float, out: Pixels | None = None
) -> Pixels:
    """Move each pixel by ``factor`` from that of another image of the same shape."""
    factor = float(np.float32(factor))
    if _rounds_as_cut_off(factor, _DIFFERENCES):
        return _array(cv2.addWeighted(pixels, factor, reference, 1 - factor, _CUT_OFF, out))
    values = (pixels.astype(np.float32) - reference) * np.float32(factor) + reference
    out = np.empty_like(pixels) if out is None else out
    out[...] = _cut_off(values)
    return out


def _moved_from(reference: int, pixels: Pixels, factor: float, out: Pixels | None) -> Pixels:
    factor = float(np.float32(factor))
    if _rounds_as_cut_off(factor, _LEVELS - reference):
        constant = (1 - factor) * reference + _CUT_OFF
        # Where no result is under -1/2, absolute values round as the results do, and are faster.
        if min(factor, constant - _CUT_OFF) >= 0:
            return _array(cv2.convertScaleAbs(pixels, out, factor, constant))
        return _array(cv2.addWeighted(pixels, factor, pixels, 0, constant, out))
    differences = (_LEVELS - reference).astype(np.float32)
    table = _cut_off(np.float32(reference) + np.float32(factor) * differences)
    return _array(cv2.LUT(pixels, table, out))


def _rounds_as_cut_off(factor: float, differences: NDArray[np.int64]) -> bool:
    """Return whether no result lies so little under a whole number that a blend rounds it up."""
    if abs(factor) > _MAX_FACTOR:
        return False
    values = factor * differences
    return bool((values - np.floor(values)).max() < 1 - 2 * _BLEND_ERROR)


def _gray(pixels: Pixels) -> Pixels:
    """Return Pillow's gray of each pixel, (height, width)."""
    return _array(cv2.transform(pixels.astype(np.float32), _GRAY).astype(np.uint8))


def _cut_off(values: NDArray[np.float32]) -> Pixels:
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _array(found: object) -> Pixels:
    return np.asarray(found, np.uint8)


_OPERATIONS: Final = (adjust_brightness, adjust_contrast, adjust_saturation)
