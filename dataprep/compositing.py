"""Compositing on white and scaling to a width, strip by strip, which saves memory.

Area interpolation treats columns and rows separately, so scaling the columns first gives the same
pixels up to rounding, and the whole image is never held in RGB at its full size.
"""

from collections.abc import Iterator
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

Pixels = NDArray[np.uint8]
"RGB, (height, width, 3)."
Box = tuple[int, int, int, int]
"Left, top, right and bottom edge in pixels."

_STRIP_PIXELS: Final = 1 << 17


def row_ranges(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last row of the strips of an image."""
    rows = max(_STRIP_PIXELS // max(width, 1), 1)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def join_strips(strips: Iterator[Pixels], width: int, height: int) -> Pixels:
    """Return RGB strips as one image (height, width, 3), each scaled down to ``width`` columns."""
    pixels = np.empty((height, width, 3), np.uint8)
    top = 0
    for strip in strips:
        rows = len(strip)
        if strip.shape[1] > width:
            strip = np.asarray(
                cv2.resize(strip, (width, rows), interpolation=cv2.INTER_AREA), np.uint8
            )
        pixels[top : top + rows] = strip
        top += rows
    return pixels


def opencv_on_white(found: NDArray[Any]) -> Iterator[Pixels]:
    """Yield strips of OpenCV's gray, BGR or BGRA image of 8 or 16 bits as RGB on white."""
    for top, bottom in row_ranges(found.shape[1], found.shape[0]):
        strip = found[top:bottom]
        if strip.dtype == np.uint16:
            strip = (strip >> 8).astype(np.uint8)
        if strip.ndim == 2:
            strip = strip[..., None]
        color = np.broadcast_to(strip[..., 2::-1], (*strip.shape[:2], 3))
        if strip.shape[2] == 4:
            alpha = strip[..., 3:].astype(np.uint16)
            color = (color * alpha + 255 * (255 - alpha) + 127) // 255
        yield color.astype(np.uint8)


def pillow_on_white(image: PillowImage.Image, frame: Box) -> Iterator[Pixels]:
    """Yield strips of a loaded image as RGB on white; what lies outside of ``frame`` is white."""
    has_alpha = image.has_transparency_data
    left, first, right, last = frame
    for top, bottom in row_ranges(image.width, image.height):
        strip = image.crop((0, top, image.width, bottom))
        if image.mode.startswith("I;16"):
            pixels = _of_16_bits(strip, image.info.get("transparency", -1))
        elif has_alpha:
            strip = strip.convert("RGBA")
            white = PillowImage.new("RGBA", strip.size, "white")
            pixels = np.array(PillowImage.alpha_composite(white, strip))[..., :3]
        else:
            pixels = np.array(strip.convert("RGB"))
        pixels[: max(first - top, 0)] = pixels[max(last - top, 0) :] = 255
        pixels[:, :left] = pixels[:, right:] = 255
        yield np.ascontiguousarray(pixels)


def _of_16_bits(strip: PillowImage.Image, transparent: int) -> Pixels:
    values = np.asarray(strip)
    gray = np.where(values == transparent, 255, values >> 8).astype(np.uint8)
    return np.repeat(gray[..., None], 3, -1)
