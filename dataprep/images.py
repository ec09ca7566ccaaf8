"""Storing images: from the bytes of a server or an archive to the stored JPEG.

The short side is scaled down to ``short_side``, never up, and the aspect ratio is kept.

| input | result |
|---|---|
| a small, upright JPEG, gray or RGB, without a foreign color profile | its bytes are kept |
| a larger JPEG | decoded at 1/2, 1/4 or 1/8 if that keeps the short side, then resized |
| CMYK, 16 bits, palette, gray | RGB of 8 bits |
| an ICC profile of RGB colors other than sRGB | converted to sRGB |
| transparency | composed on white |
| an animation, several images in one file | the first one |
| an EXIF orientation, in any format | turned upright |
| gzip around an image | unzipped |
| damaged metadata | ignored |
| JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF | decoded |
| another image format | ``unsupported_format``, with its name |
| more pixels than ``max_pixels`` in the header (half as many for AVIF and animated WebP, whose
  decoders need twice the memory) | ``too_many_pixels``, not decoded |
| a side under ``min_side`` | ``too_small`` |
| truncated or damaged | ``undecodable`` |
| a side longer than a JPEG allows | ``unencodable`` |
| HTML, SVG, no bytes, … | ``not_an_image`` |

A profile of CMYK or gray values is not applied.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from dataprep.color_profiles import needs_conversion, to_srgb
from dataprep.decoding import Decoded, ImageFile, Pixels, decode, decode_stored, open_image
from dataprep.image_errors import (
    NOT_AN_IMAGE,
    TOO_LARGE,
    TOO_SMALL,
    UNDECODABLE,
    UNENCODABLE,
    UNSUPPORTED_FORMAT,
    ImageError,
)
from dataprep.image_hashes import look_of

__all__ = [
    "NOT_AN_IMAGE", "TOO_LARGE", "TOO_SMALL", "UNDECODABLE", "UNENCODABLE", "UNSUPPORTED_FORMAT",
    "ImageError", "ImageRules", "Pixels", "StoredImage",
    "decode_stored", "encode_jpeg", "fitted", "resize", "store_image",
]  # fmt: skip

_MAX_BYTES_PER_PIXEL: Final = 3
"A JPEG with more bytes per pixel carries other data than the image, and is encoded anew."


@dataclass(frozen=True)
class ImageRules:
    """Which images are stored, and how."""

    short_side: int
    "Length in pixels to which the short side is scaled down."
    jpeg_quality: int
    "JPEG quality, 1 to 100."
    min_side: int
    "Shortest side in pixels of an image that is stored."
    max_pixels: int
    "Largest number of pixels of an image that is decoded."


@dataclass(frozen=True)
class StoredImage:
    """A stored image and facts about its original."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    original_bytes: int | None
    "Size of the original file; None if the fetch engine does not report it."
    sha256: str
    "Hexadecimal SHA-256 of the original file."
    phash: str
    "Perceptual hash; see ``image_hashes``."
    colors: bytes
    "Mean RGB of each cell of a grid, row by row, one byte per channel."


def store_image(data: bytes, rules: ImageRules) -> StoredImage:
    """Decode, resize and encode an image.

    Raises:
        ImageError: the bytes are not an image, are damaged, or break a rule.
    """
    file = open_image(data)
    _check_size(file, rules)
    decoded = decode(file, rules.short_side)
    size = fitted(file.width, file.height, rules.short_side)
    resized = resize(decoded.pixels, size)
    pixels = _upright(to_srgb(resized, decoded.icc_profile), decoded.orientation)
    is_kept = resized is decoded.pixels and _is_kept(file, decoded)
    is_turned = decoded.orientation > 4
    phash, colors = look_of(pixels)
    return StoredImage(
        jpeg=file.data if is_kept else encode_jpeg(pixels, rules.jpeg_quality),
        width=pixels.shape[1],
        height=pixels.shape[0],
        original_width=file.height if is_turned else file.width,
        original_height=file.width if is_turned else file.height,
        original_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        phash=phash,
        colors=colors,
    )


def fitted(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the width and height in which an image is stored."""
    scale = short_side / min(width, height)
    if scale >= 1:
        return width, height
    return max(round(width * scale), short_side), max(round(height * scale), short_side)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return an image scaled down to a (width, height); the same array if it has that size."""
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Return RGB ``pixels`` (height, width, 3) as a JPEG.

    Raises:
        ImageError: the encoder refuses them, for example a side that no JPEG can have.
    """
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise ImageError(UNENCODABLE, str(error.err)) from None
    if not done or not len(data):
        height, width = pixels.shape[:2]
        raise ImageError(UNENCODABLE, f"{width}x{height} cannot be encoded as JPEG")
    return bytes(data)


def _check_size(file: ImageFile, rules: ImageRules) -> None:
    size = f"{file.width}x{file.height}"
    if min(file.height, file.width) < rules.min_side:
        raise ImageError(TOO_SMALL, f"{size}, the shorter side is under {rules.min_side}")
    max_pixels = rules.max_pixels // file.memory_factor
    if file.height * file.width > max_pixels:
        raise ImageError(TOO_LARGE, f"{size}, over {max_pixels} pixels for {file.format}")


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation."""
    if orientation > 4:  # the first row of the file is a column of the image
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _is_kept(file: ImageFile, decoded: Decoded) -> bool:
    return (
        file.jpeg is not None
        and file.jpeg.num_components in (1, 3)
        and decoded.orientation == 1
        and not needs_conversion(decoded.icc_profile)
        and len(file.data) <= _MAX_BYTES_PER_PIXEL * file.width * file.height
    )
