"""Storing images: from the bytes of a server or an archive to the stored JPEG.

The short side is scaled down to ``short_side``, never up, and the aspect ratio is kept.

| input | result |
|---|---|
| a small, upright JPEG, gray or RGB, without a foreign color profile | its bytes are kept |
| such a JPEG whose metadata Pillow refuses to read | encoded anew |
| a larger JPEG | decoded at 1/2, 1/4 or 1/8 if that keeps the short side, then resized |
| CMYK, 16 bits, palette, gray | RGB of 8 bits |
| an ICC profile of RGB colors other than sRGB | converted to sRGB |
| transparency, and the part of a canvas that a frame does not cover | white |
| an animation, several images in one file | the first one, whatever follows it |
| an EXIF orientation, in any format; the rotation in an AVIF's boxes | turned upright |
| gzip around an image | unpacked |
| damaged metadata | ignored |
| JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF | decoded |
| another format, or one of these with more bits than decoders read | ``unsupported_format`` |
| more pixels than ``max_pixels`` in the header | ``too_many_pixels``, not decoded |
| a side under ``min_side`` | ``too_small`` |
| truncated or damaged | ``undecodable`` |
| a side of the stored image longer than a JPEG allows | ``unencodable``, not decoded |
| HTML, no bytes, … | ``not_an_image`` |

A decode takes less than 12 bytes per pixel, except for an AVIF and a PNG with a transparent color
of 16 bits: these may take twice as many, so half of ``max_pixels`` is their limit. Not applied are
color profiles of CMYK or gray values, and gamma and primaries that are given without a profile.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from dataprep.color_profiles import needs_conversion, to_srgb
from dataprep.compositing import Pixels
from dataprep.decoding import ImageFile, open_image
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
from dataprep.jpeg_segments import read_segments
from dataprep.opencv_decoding import decode_stored
from dataprep.pillow_decoding import is_opened

__all__ = [
    "NOT_AN_IMAGE", "TOO_LARGE", "TOO_SMALL", "UNDECODABLE", "UNENCODABLE", "UNSUPPORTED_FORMAT",
    "ImageError", "ImageRules", "Pixels", "StoredImage",
    "check_jpeg", "decode_image", "decode_stored", "encode_jpeg", "fitted", "resize", "store_image",
]  # fmt: skip

MAX_PIXELS: Final = 200_000_000
"Largest number of pixels of an image that is decoded, unless a recipe says otherwise."
_MAX_BYTES_PER_PIXEL: Final = 3
"A JPEG with more bytes per pixel carries other data than the image, and is encoded anew."
_MAX_JPEG_SIDE: Final = 65_500
"Longest side in pixels that libjpeg encodes."


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
    gray: bytes
    "Mean gray of each cell of a finer grid, row by row, one byte each."


def store_image(data: bytes, rules: ImageRules) -> StoredImage:
    """Decode, resize and encode an image.

    Raises:
        ImageError: the bytes are not an image, are damaged, or break a rule.
    """
    file = open_image(data)
    size = fitted(file.width, file.height, rules.short_side)
    _check_size(file, size, rules)
    is_kept = size == (file.width, file.height) and _is_upright_srgb(file)
    pixels = resize(file.decode(size), size)
    pixels = _upright(to_srgb(pixels, file.icc_profile), file.orientation)
    is_turned = file.orientation > 4
    look = look_of(pixels)
    return StoredImage(
        jpeg=file.jpeg if is_kept and file.jpeg else encode_jpeg(pixels, rules.jpeg_quality),
        width=pixels.shape[1],
        height=pixels.shape[0],
        original_width=file.height if is_turned else file.width,
        original_height=file.width if is_turned else file.height,
        original_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        **look._asdict(),
    )


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return an image at its full size as it would be stored: RGB on white, sRGB, upright.

    Raises:
        ImageError: the bytes are not an image, are damaged, or have more pixels than allowed.
    """
    file = open_image(data)
    _check_pixels(file, max_pixels)
    pixels = file.decode((file.width, file.height))
    return _upright(to_srgb(pixels, file.icc_profile), file.orientation)


def check_jpeg(image: StoredImage) -> None:
    """Check that an image that is about to be stored is a whole JPEG of the recorded size.

    Raises:
        ImageError: it is not.
    """
    try:
        segments = read_segments(image.jpeg)
    except ImageError as error:
        raise ImageError(UNENCODABLE, f"the stored JPEG is damaged: {error.detail}") from None
    size = f"{segments.width}x{segments.height}"
    if size != f"{image.width}x{image.height}":
        detail = f"the stored JPEG is {size}, recorded as {image.width}x{image.height}"
        raise ImageError(UNENCODABLE, detail)


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


def _check_size(file: ImageFile, fitted_size: tuple[int, int], rules: ImageRules) -> None:
    size = f"{file.width}x{file.height}"
    if min(file.height, file.width) < rules.min_side:
        raise ImageError(TOO_SMALL, f"{size}, the shorter side is under {rules.min_side}")
    _check_pixels(file, rules.max_pixels)
    if max(fitted_size) > _MAX_JPEG_SIDE:
        raise ImageError(UNENCODABLE, f"{size}, a JPEG's side has at most {_MAX_JPEG_SIDE} pixels")


def _check_pixels(file: ImageFile, most: int) -> None:
    most //= file.memory_factor
    if file.height * file.width > most:
        size = f"{file.width}x{file.height}"
        raise ImageError(TOO_LARGE, f"{size}, over {most} pixels for {file.format}")


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation."""
    if orientation > 4:  # the first row of the file is a column of the image
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _is_upright_srgb(file: ImageFile) -> bool:
    """Return whether the bytes of a JPEG can be stored as they are."""
    return (
        file.jpeg is not None
        and file.orientation == 1
        and not needs_conversion(file.icc_profile)
        and len(file.jpeg) <= _MAX_BYTES_PER_PIXEL * file.width * file.height
        and is_opened(file.jpeg, "JPEG")  # readers of the stored images use Pillow too
    )
