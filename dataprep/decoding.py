"""Decoding: the bytes of an image file to RGB pixels, and the metadata that the pixels need.

OpenCV decodes JPEG (at a fraction, where that is enough) and WebP, Pillow everything else, because
these need the least memory. Metadata that cannot be read is ignored, and only the first frame of an
animation is decoded. Orientation and color profile are returned, not applied: the caller applies
them to the resized image, which is cheaper.
"""

import io
import zlib
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PillowImage

from dataprep.image_errors import NOT_AN_IMAGE, UNDECODABLE, UNSUPPORTED_FORMAT, ImageError
from dataprep.image_metadata import WebpChunks, png_of_pixels, read_webp
from dataprep.jpeg_segments import SOI, JpegSegments, read_segments

# The caller compares the header's size with its rules; Pillow's own warning knows no rules.
PillowImage.MAX_IMAGE_PIXELS = None

Pixels = NDArray[np.uint8]
"RGB, (height, width, 3)."

_READ: Final = (
    (0, SOI, "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
)
"Formats that are decoded: offset and value of the signature, name."
_UNREAD: Final = (
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
)
"Image formats that are recognized but not decoded."
_GZIP: Final = b"\x1f\x8b"
_MAX_UNZIPPED_BYTES: Final = 1 << 27
_REDUCED: Final = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}
"""libjpeg leaves out the frequencies that a smaller image cannot show: faster, and no aliasing.
The flags called gray only lack the bit for color."""
_JPEG_FLAGS: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_FILL: Final = 128
"Gray with which libjpeg fills the missing part of a scan."
_PADDING: Final = bytes(range(1, 255)) * 4
_STRIP_BYTES: Final = 1 << 24


@dataclass(frozen=True)
class ImageFile:
    """An image file whose header has been read."""

    format: str
    data: bytes
    "Bytes of the first image alone, unzipped and without what follows its end."
    width: int
    "Width in pixels, before the orientation is applied."
    height: int
    memory_factor: int = 1
    "Memory of a decode, relative to formats that take less than 12 bytes per pixel."
    jpeg: JpegSegments | None = None
    webp: WebpChunks | None = None


@dataclass(frozen=True)
class Decoded:
    """The pixels of an image as they lie in the file."""

    pixels: Pixels
    orientation: int
    "EXIF orientation, 1 (upright) to 8."
    icc_profile: bytes
    "ICC profile of the pixels; empty if the file has none."


def has_image_signature(data: bytes) -> bool:
    """Return whether bytes begin like an image, of a format that is decoded or not."""
    return _format_of(data, _READ + _UNREAD) is not None


def open_image(data: bytes) -> ImageFile:
    """Read the header of an image file; its pixels are not decoded.

    Raises:
        ImageError: the bytes are not an image, or of no format that is read, or damaged.
    """
    if data.startswith(_GZIP):
        data = _unzipped(data)
    form = _format_of(data, _READ)
    if form is None:
        if name := _format_of(data, _UNREAD):
            raise ImageError(UNSUPPORTED_FORMAT, f"{name} is not decoded")
        raise ImageError(NOT_AN_IMAGE, f"begins with {data[:16]!r}")
    if form == "JPEG":
        jpeg = read_segments(data)
        return ImageFile(form, data[: jpeg.end], jpeg.width, jpeg.height, jpeg=jpeg)
    if form == "WEBP":
        webp = read_webp(data)
        factor = 2 if webp.is_animated else 1
        return ImageFile(form, data, webp.width, webp.height, factor, webp=webp)
    if form == "PNG":
        data = png_of_pixels(data)
    try:
        with PillowImage.open(io.BytesIO(data), formats=(form,)) as image:
            return ImageFile(form, data, image.width, image.height, 2 if form == "AVIF" else 1)
    except PillowImage.UnidentifiedImageError:  # its message holds a memory address
        raise ImageError(UNDECODABLE, f"damaged {form} header") from None
    except Exception as error:  # whatever a damaged header makes a plugin raise
        raise ImageError(UNDECODABLE, f"{form}: {type(error).__name__}: {error}") from None


def decode(file: ImageFile, short_side: int) -> Decoded:
    """Decode the first frame, of a large JPEG at a fraction that keeps ``short_side`` pixels.

    Raises:
        ImageError: the image is damaged or truncated.
    """
    if file.jpeg is not None:
        pixels = _decode_jpeg(file, file.jpeg, short_side)
        return Decoded(pixels, orientation_of(file.jpeg.exif), file.jpeg.icc_profile)
    if file.webp is not None:
        pixels = _on_white(_imdecode(file.data, cv2.IMREAD_UNCHANGED))
        return Decoded(pixels, orientation_of(file.webp.exif), file.webp.icc_profile)
    try:
        with PillowImage.open(io.BytesIO(file.data), formats=(file.format,)) as image:
            image.load()
            # Read after the pixels: Pillow turns TIFF and AVIF itself and then drops the tag.
            orientation = _valid_orientation(image)
            return Decoded(_rgb(image), orientation, image.info.get("icc_profile") or b"")
    except ImageError:
        raise
    except Exception as error:  # whatever damaged pixels make a plugin raise
        detail = f"{file.format}: {type(error).__name__}: {error}"
        raise ImageError(UNDECODABLE, detail) from None


def decode_stored(jpeg: bytes) -> Pixels:
    """Return the pixels of a JPEG that this pipeline stored."""
    return _imdecode(jpeg, _JPEG_FLAGS)


def orientation_of(exif: bytes) -> int:
    """Return the EXIF orientation in a block of EXIF data; 1 if it cannot be read."""
    if not exif:
        return 1
    image = PillowImage.new("1", (1, 1))
    image.info["exif"] = exif if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif
    return _valid_orientation(image)


def _valid_orientation(image: PillowImage.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata never decides over the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _format_of(data: bytes, formats: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for offset, magic, name in formats if data.startswith(magic, offset)), None)


def _unzipped(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data, _MAX_UNZIPPED_BYTES)
    except zlib.error as error:
        raise ImageError(UNDECODABLE, f"damaged gzip: {error}") from None


def _decode_jpeg(file: ImageFile, segments: JpegSegments, short_side: int) -> Pixels:
    shorter = min(file.width, file.height)
    scale = next((s for s in _REDUCED if shorter // s >= short_side), 1)
    flags = _JPEG_FLAGS | _REDUCED.get(scale, 0)
    pixels = _imdecode(file.data, flags)
    is_cmyk = segments.num_components == 4
    if (pixels[-1, -1] == _FILL).all() or (is_cmyk and np.ptp(pixels[-1, -1]) == 0):
        # The corner looks like libjpeg's filling. More data at the end of the scan changes the
        # pixels only if the scan is incomplete.
        end = segments.last_scan_end
        padded = file.data[:end] + _PADDING + file.data[end:]
        if not np.array_equal(pixels, _imdecode(padded, flags)):
            raise ImageError(UNDECODABLE, "truncated: the JPEG's scan is incomplete")
    return pixels


def _rgb(image: PillowImage.Image) -> Pixels:
    """Return a loaded image as RGB on white, converted in strips to save memory."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(_STRIP_BYTES // (4 * max(image.width, 1)), 1)
    has_alpha = image.has_transparency_data
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, bottom))
        if image.mode.startswith("I;16"):
            deep = np.asarray(strip)
            deep = np.where(deep == image.info.get("transparency", -1), 65535, deep)
            pixels[top:bottom] = (deep >> 8).astype(np.uint8)[..., None]
        elif image.mode in ("I", "F"):
            raise ImageError(UNSUPPORTED_FORMAT, f"{image.format} with 32 bits per channel")
        elif has_alpha:
            white = PillowImage.new("RGBA", strip.size, "white")
            pixels[top:bottom] = np.asarray(
                PillowImage.alpha_composite(white, strip.convert("RGBA"))
            )[..., :3]
        else:
            pixels[top:bottom] = np.asarray(strip.convert("RGB"))
    return pixels


def _on_white(found: NDArray[Any]) -> Pixels:
    """Return OpenCV's BGR or BGRA image as RGB on white, converted in strips to save memory."""
    if found.ndim != 3:
        return np.repeat(found[..., None], 3, -1)
    pixels = np.empty((*found.shape[:2], 3), np.uint8)
    rows = max(_STRIP_BYTES // (16 * found.shape[1]), 1)
    for top in range(0, len(found), rows):
        strip = found[top : top + rows]
        color = strip[..., 2::-1]
        if strip.shape[2] == 4:
            alpha = strip[..., 3:].astype(np.uint16)
            color = (color * alpha + 255 * (255 - alpha) + 127) // 255
        pixels[top : top + rows] = color
    return pixels


def _imdecode(data: bytes, flags: int) -> NDArray[Any]:
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(UNDECODABLE, str(error.err)) from None
    if found is None:
        raise ImageError(UNDECODABLE, f"OpenCV cannot decode these {len(data)} bytes")
    return np.asarray(found)
