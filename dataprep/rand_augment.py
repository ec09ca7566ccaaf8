"""RandAugment of the released vision-language fine-tuning: a few random changes of a crop.

Each of ``NUM_OPERATIONS`` operations is chosen with replacement and applied half of the time, at
one fixed level. Operations on colors give the pixels of Pillow's operations of these names.
Operations on positions sample linearly, count pixels from the center of the corner pixel, and show
gray outside of the image. The released sharpness lets bright edges overflow a byte and turn dark;
here they are cut off, as in Pillow.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.color_jitter import adjust_brightness, moved_from_image
from dataprep.images import Pixels

NUM_OPERATIONS: Final = 2
"Operations that are chosen for a crop."
_PER_OPERATION: Final = 3
"Random numbers of an operation: which one, whether it is applied, its sign."
NUM_UNIFORMS: Final = NUM_OPERATIONS * _PER_OPERATION
"Random numbers that a crop takes."

_PROBABILITY: Final = 0.5
_LEVEL: Final = 7 / 10
"The level as a fraction of the highest."
_FACTOR: Final = 0.1 + 1.8 * _LEVEL
"Factor of brightness and sharpness."
_SHEAR: Final = 0.3 * _LEVEL
_TRANSLATION: Final = 10 * _LEVEL
"Pixels."
_DEGREES: Final = 30 * _LEVEL
_FILL: Final = (128, 128, 128)

_SMOOTH: Final = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"Pillow's filter of this name, from which sharpness moves pixels."


def rand_augment(pixels: Pixels, uniforms: NDArray[np.float64]) -> Pixels:
    """Apply the chosen operations to RGB ``pixels`` (height, width, 3), which are not changed.

    Args:
        pixels: the crop.
        uniforms: ``NUM_UNIFORMS`` random numbers in [0, 1).
    """
    operations = list(OPERATIONS.values())
    for choice, chance, sign in np.reshape(uniforms, (-1, _PER_OPERATION)).tolist():
        if chance < _PROBABILITY:
            operation = operations[int(choice * len(operations))]
            pixels = operation(pixels, 1.0 if sign < 0.5 else -1.0)
    return pixels


def auto_contrast(pixels: Pixels) -> Pixels:
    """Stretch each channel to the whole range of a byte."""
    tables = []
    for histogram in _histograms(pixels):
        used = np.flatnonzero(histogram)
        low, high = int(used[0]), int(used[-1])
        scale = 255 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append(np.arange(256) * scale + offset)
    return _looked_up(pixels, tables)


def equalize(pixels: Pixels) -> Pixels:
    """Spread the values of each channel evenly over the range of a byte."""
    tables = []
    for histogram in _histograms(pixels):
        used = np.flatnonzero(histogram)
        step = int(histogram.sum() - histogram[used[-1]]) // 255
        below = np.cumsum(histogram) - histogram
        tables.append((below + step // 2) // step if step else np.arange(256))
    return _looked_up(pixels, tables)


def sharpen(pixels: Pixels, factor: float) -> Pixels:
    """Move pixels from their smoothed values by ``factor``; the outermost pixels stay."""
    smooth = cv2.filter2D(pixels, -1, _SMOOTH)
    for edge in np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]:
        smooth[edge] = pixels[edge]
    return moved_from_image(np.asarray(smooth, np.uint8), pixels, factor)


def shear_x(pixels: Pixels, factor: float) -> Pixels:
    """Move row y to the right by ``factor`` * y."""
    return _warped(pixels, np.array([[1, factor, 0], [0, 1, 0]]))


def shear_y(pixels: Pixels, factor: float) -> Pixels:
    """Move column x down by ``factor`` * x."""
    return _warped(pixels, np.array([[1, 0, 0], [factor, 1, 0]]))


def translate(pixels: Pixels, x: float, y: float) -> Pixels:
    """Move the image to the right and down, in pixels."""
    return _warped(pixels, np.array([[1, 0, x], [0, 1, y]], np.float64))


def rotate(pixels: Pixels, degrees: float) -> Pixels:
    """Turn the image counterclockwise about the position (width / 2, height / 2)."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return _warped(pixels, np.asarray(matrix))


OPERATIONS: Final[dict[str, Callable[[Pixels, float], Pixels]]] = {
    "Identity": lambda pixels, sign: pixels,
    "AutoContrast": lambda pixels, sign: auto_contrast(pixels),
    "Equalize": lambda pixels, sign: equalize(pixels),
    "Brightness": lambda pixels, sign: adjust_brightness(pixels, _FACTOR),
    "Sharpness": lambda pixels, sign: sharpen(pixels, _FACTOR),
    "ShearX": lambda pixels, sign: shear_x(pixels, sign * _SHEAR),
    "ShearY": lambda pixels, sign: shear_y(pixels, sign * _SHEAR),
    "TranslateX": lambda pixels, sign: translate(pixels, sign * _TRANSLATION, 0),
    "TranslateY": lambda pixels, sign: translate(pixels, 0, sign * _TRANSLATION),
    "Rotate": lambda pixels, sign: rotate(pixels, sign * _DEGREES),
}
"Operations by the name that the released code gives them, of a crop and a sign."


def _histograms(pixels: Pixels) -> list[NDArray[np.int64]]:
    """Return how often each value occurs in each channel, (256,)."""
    channels = range(pixels.shape[2])
    found = (cv2.calcHist([pixels], [channel], None, [256], [0, 256]) for channel in channels)
    return [np.asarray(each, np.int64).reshape(256) for each in found]


def _looked_up(pixels: Pixels, tables: Sequence[NDArray[Any]]) -> Pixels:
    """Replace each value of a channel by that in the channel's table, cut off to a byte."""
    table = np.stack(tables, -1).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table[None]), np.uint8)


def _warped(pixels: Pixels, matrix: NDArray[Any]) -> Pixels:
    """Move each pixel from its position to that which a (2, 3) matrix gives."""
    height, width = pixels.shape[:2]
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderValue=_FILL), np.uint8)
