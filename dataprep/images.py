"""Pictures: from whatever bytes a server or an archive gave to the JPEG that is stored.

The short side is brought down to ``short_side`` (never up) and the aspect ratio kept.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

Pixels = NDArray[np.uint8]
"RGB, (height, width, 3)."

NOT_AN_IMAGE: Final = "not_an_image"
UNDECODABLE: Final = "undecodable"
TOO_SMALL: Final = "too_small"
TOO_LARGE: Final = "too_many_pixels"

_SIGNATURES: Final = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"RIFF",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
)
_JPEG: Final = _SIGNATURES[0]
_END_OF_JPEG: Final = b"\xff\xd9"


class ImageError(ValueError):
    """A picture that cannot be stored; ``reason`` is one of this module's constants."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class ImageRules:
    """What is stored, and how."""

    short_side: int
    jpeg_quality: int
    min_side: int
    max_pixels: int


@dataclass(frozen=True)
class StoredImage:
    """A picture as it is kept."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    original_bytes: int
    sha256: str
    "Of the original bytes."
    phash: str
    "Perceptual hash of the original's look, as imagehash writes it."


def store_image(data: bytes, rules: ImageRules) -> StoredImage:
    """Decode, resize and encode a picture.

    Raises:
        ImageError: it is no picture, is damaged, or breaks a rule.
    """
    pixels = decode(data, rules)
    height, width = pixels.shape[:2]
    resized = shrink(pixels, rules.short_side)
    return StoredImage(
        jpeg=encode_jpeg(resized, rules.jpeg_quality),
        width=resized.shape[1],
        height=resized.shape[0],
        original_width=width,
        original_height=height,
        original_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        phash=str(imagehash.phash(PillowImage.fromarray(resized))),
    )


def decode(data: bytes, rules: ImageRules) -> Pixels:
    """Return a picture's pixels, turned as its EXIF orientation says.

    Raises:
        ImageError: see :func:`store_image`.
    """
    if not data.startswith(_SIGNATURES):
        raise ImageError(NOT_AN_IMAGE, f"begins with {data[:16]!r}")
    # The decoder fills the missing part of a cut JPEG with grey and says nothing. An end marker in
    # the first half may belong to a thumbnail; bytes may follow the true one.
    if data.startswith(_JPEG) and data.find(_END_OF_JPEG, len(data) // 2) < 0:
        raise ImageError(UNDECODABLE, "the JPEG has no end marker")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(UNDECODABLE, str(error.err)) from None
    if bgr is None:
        raise ImageError(UNDECODABLE, f"{len(data)} bytes")
    height, width = bgr.shape[:2]
    if min(height, width) < rules.min_side:
        raise ImageError(TOO_SMALL, f"{width}x{height}, the shorter side is under {rules.min_side}")
    if height * width > rules.max_pixels:
        raise ImageError(TOO_LARGE, f"{width}x{height}, over {rules.max_pixels} pixels")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def shrink(pixels: Pixels, short_side: int) -> Pixels:
    """Return a picture whose shorter side is at most ``short_side``."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return pixels
    size = (max(round(width * scale), short_side), max(round(height * scale), short_side))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Return ``pixels`` as a JPEG."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def decode_stored(jpeg: bytes) -> Pixels:
    """Return the pixels of a JPEG that this pipeline stored."""
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
