"""Images: from whatever bytes a server or an archive gave to the JPEG that is stored.

The short side is brought down to ``short_side``, never up, and the aspect ratio kept.

| what came | what is done |
|---|---|
| a JPEG that is small enough, upright, gray or RGB | its bytes are kept as they are |
| a larger JPEG | decoded at 1/2, 1/4 or 1/8 where that still gives the short side |
| CMYK, 16 bits, palette, gray | RGB of 8 bits |
| transparency | laid on white |
| an animation | its first frame |
| an EXIF orientation | turned upright |
| more pixels than ``max_pixels``, as the header says | ``too_many_pixels``, not decoded |
| a side under ``min_side`` | ``too_small`` |
| cut short or damaged | ``undecodable`` |
| HTML, SVG, nothing, … | ``not_an_image`` |
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PillowImage

# The header's size is compared with the rules at once; Pillow's own warning knows neither.
PillowImage.MAX_IMAGE_PIXELS = None

Pixels = NDArray[np.uint8]
"RGB, (height, width, 3)."

NOT_AN_IMAGE: Final = "not_an_image"
UNDECODABLE: Final = "undecodable"
TOO_SMALL: Final = "too_small"
TOO_LARGE: Final = "too_many_pixels"
COLOR_GRID: Final = 4
"``StoredImage.colors`` are the means of so many fields by so many."

_SIGNATURES: Final = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"RIFF",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
)
_FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
_JPEG: Final = _SIGNATURES[0]
_END_OF_JPEG: Final = b"\xff\xd9"
_RGB: Final = cv2.IMREAD_COLOR_RGB
_REDUCED: Final = {
    8: _RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: _RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: _RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
}
"""libjpeg leaves out the frequencies that a smaller image cannot show: faster, and no aliasing.
The flags called gray only lack the bit for BGR."""
_MOST_BYTES_PER_PIXEL: Final = 3
"An original above it carries something else than the image, and is encoded anew."
_GRID_SIDE: Final = 32
_GRAY: Final = np.array([19595, 38470, 7471])
"Of red, green and blue in Pillow's gray, in 65536ths."
_LOW_FREQUENCIES: Final = np.cos(np.pi / 64 * np.outer(np.arange(8), 2 * np.arange(_GRID_SIDE) + 1))
"Of the discrete cosine transform (II), unscaled: (8, 32)."


class ImageError(ValueError):
    """An image that cannot be stored; ``reason`` is one of this module's constants."""

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
    """An image as it is kept."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    original_bytes: int | None
    "None where the engine that fetched it does not say."
    sha256: str
    "Of the original bytes."
    phash: str
    "Perceptual hash of the look; see :func:`perceptual_hash`."
    colors: bytes
    "Mean RGB of a grid of fields, row by row, a byte each."


@dataclass(frozen=True)
class _Header:
    """What a file says of itself."""

    kind: str
    width: int
    height: int
    mode: str
    has_alpha: bool
    is_upright: bool


def store_image(data: bytes, rules: ImageRules) -> StoredImage:
    """Decode, resize and encode an image.

    Raises:
        ImageError: it is no image, is damaged, or breaks a rule.
    """
    header = _read_header(data)
    _check_size(header.width, header.height, rules)
    if header.kind == "JPEG":
        pixels, width, height = _decode_jpeg(data, header, rules.short_side)
    else:
        pixels = _decode_whole(data, header)
        height, width = pixels.shape[:2]
        _check_size(width, height, rules)
    resized = resize(pixels, fitted(width, height, rules.short_side))
    phash, colors = look_of(resized)
    kept = resized is pixels and _is_kept(data, header)
    return StoredImage(
        jpeg=data if kept else encode_jpeg(resized, rules.jpeg_quality),
        width=resized.shape[1],
        height=resized.shape[0],
        original_width=width,
        original_height=height,
        original_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        phash=phash,
        colors=colors,
    )


def look_of(pixels: Pixels) -> tuple[str, bytes]:
    """Return a perceptual hash and the colors of a grid, by which copies are found."""
    small = cv2.resize(pixels, (_GRID_SIDE, _GRID_SIDE), interpolation=cv2.INTER_AREA)
    field = _GRID_SIDE // COLOR_GRID
    means = small.reshape(COLOR_GRID, field, COLOR_GRID, field, 3).mean((1, 3))
    return perceptual_hash(small), np.round(means).astype(np.uint8).tobytes()


def perceptual_hash(small: Pixels) -> str:
    """Return imagehash's ``phash`` of an image of 32 by 32 pixels, 16 hexadecimal digits.

    A bit for each of the 8 by 8 lowest frequencies: whether it is above their median. imagehash's
    own way down to 32 by 32 differs by no more bits than another JPEG quality does.
    """
    gray = (small @ _GRAY + (1 << 15)) >> 16
    low = np.round(_LOW_FREQUENCIES @ gray @ _LOW_FREQUENCIES.T, 6).ravel()  # no noise in flat ones
    middle = np.sort(low)[31:33].mean()
    return np.packbits(low > middle).tobytes().hex()


def fitted(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the width and height in which an image is stored."""
    scale = short_side / min(width, height)
    if scale >= 1:
        return width, height
    return max(round(width * scale), short_side), max(round(height * scale), short_side)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return an image averaged down to a width and height; the same one if it has them."""
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Return ``pixels`` as a JPEG."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def decode_stored(jpeg: bytes) -> Pixels:
    """Return the pixels of a JPEG that this pipeline stored."""
    return _imdecode(jpeg, _RGB)


def _read_header(data: bytes) -> _Header:
    if not data.startswith(_SIGNATURES):
        raise ImageError(NOT_AN_IMAGE, f"begins with {data[:16]!r}")
    # The decoder fills the missing part of a cut JPEG with gray and says nothing. An end marker in
    # the first half may belong to a thumbnail; bytes may follow the true one.
    if data.startswith(_JPEG) and data.rfind(_END_OF_JPEG, len(data) // 2) < 0:
        raise ImageError(UNDECODABLE, "the JPEG has no end marker")
    try:
        with PillowImage.open(io.BytesIO(data), formats=_FORMATS) as image:
            exif = image.info.get("exif") and image.getexif()
            return _Header(
                kind="JPEG" if image.format == "MPO" else str(image.format),
                width=image.width,
                height=image.height,
                mode=image.mode,
                has_alpha=image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
                is_upright=not exif or exif.get(ExifTags.Base.Orientation, 1) == 1,
            )
    except Exception as error:  # whatever a damaged header makes a plugin raise
        raise ImageError(UNDECODABLE, f"{type(error).__name__}: {error}") from None


def _check_size(width: int, height: int, rules: ImageRules) -> None:
    if min(height, width) < rules.min_side:
        raise ImageError(TOO_SMALL, f"{width}x{height}, the shorter side is under {rules.min_side}")
    if height * width > rules.max_pixels:
        raise ImageError(TOO_LARGE, f"{width}x{height}, over {rules.max_pixels} pixels")


def _decode_jpeg(data: bytes, header: _Header, short_side: int) -> tuple[Pixels, int, int]:
    """Return pixels, at a fraction where that is enough, and the upright width and height."""
    shorter = min(header.width, header.height)
    scale = next((s for s in _REDUCED if shorter // s >= short_side), 1)
    pixels = _imdecode(data, _REDUCED.get(scale, _RGB))
    as_stored = -(-header.height // scale), -(-header.width // scale)
    turned = not header.is_upright and pixels.shape[:2] == as_stored[::-1] != as_stored
    width, height = header.width, header.height
    return (pixels, height, width) if turned else (pixels, width, height)


def _decode_whole(data: bytes, header: _Header) -> Pixels:
    if not header.has_alpha:
        return _imdecode(data, _RGB)
    found = _imdecode(data, cv2.IMREAD_UNCHANGED)
    if found.dtype == np.uint16:
        found = (found >> 8).astype(np.uint8)
    if found.ndim == 2 or found.shape[2] != 4:
        return _imdecode(data, _RGB)
    alpha = found[..., 3:].astype(np.float32) / 255
    on_white = found[..., :3] * alpha + 255 * (1 - alpha)
    return np.ascontiguousarray(np.round(on_white).astype(np.uint8)[..., ::-1])


def _is_kept(data: bytes, header: _Header) -> bool:
    return (
        header.kind == "JPEG"
        and header.mode in ("RGB", "L")
        and header.is_upright
        and len(data) <= _MOST_BYTES_PER_PIXEL * header.width * header.height
    )


def _imdecode(data: bytes, flags: int) -> NDArray[Any]:
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(UNDECODABLE, str(error.err)) from None
    if found is None:
        raise ImageError(UNDECODABLE, f"{len(data)} bytes")
    return np.asarray(found)
