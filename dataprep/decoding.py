"""Opening image files: the size, the metadata that the pixels need, and how to decode them.

OpenCV decodes JPEG (at a fraction, where that is enough) and WebP, Pillow the rest, because
these need the least memory. Orientation and color profile are returned, not applied: the caller
applies them to the resized image, which is cheaper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from dataprep.avif_boxes import still_avif
from dataprep.compositing import Pixels
from dataprep.image_errors import UNDECODABLE, ImageError
from dataprep.image_formats import format_of, unpacked
from dataprep.jpeg_segments import read_segments
from dataprep.opencv_decoding import decode_jpeg, decode_on_white
from dataprep.pillow_decoding import decode_with_pillow, opened, orientation_of
from dataprep.png_chunks import PngChunks, read_png
from dataprep.webp_chunks import WebpChunks, read_webp

Size = tuple[int, int]
"Width and height in pixels."


@dataclass(frozen=True)
class ImageFile:
    """An image file whose header has been read."""

    format: str
    width: int
    "Width in pixels, before the orientation is applied."
    height: int
    decode: Callable[[Size], Pixels]
    """Return the first frame in RGB on white, as it lies in the file, with at least this size.

    Raises:
        ImageError: the image is damaged or truncated.
    """
    orientation: int = 1
    "EXIF orientation, 1 (upright) to 8, that is yet to be applied."
    icc_profile: bytes = b""
    "ICC profile of RGB pixels; empty if the file has none."
    jpeg: bytes | None = None
    "A gray or RGB JPEG without what follows its end; None for other files."
    memory_factor: int = 1
    "Memory of a decode, relative to formats that take less than 12 bytes per pixel."


def open_image(data: bytes) -> ImageFile:
    """Read the header of an image file; its pixels are not decoded.

    Raises:
        ImageError: the bytes are not an image, or of no format that is read, or damaged.
    """
    data = unpacked(data)
    form = format_of(data)
    file = _OPENERS.get(form, partial(_open_with_pillow, form))(data)
    if not (file.width and file.height):
        raise ImageError(UNDECODABLE, f"the {form} is {file.width}x{file.height} pixels large")
    return file


def _open_jpeg(data: bytes) -> ImageFile:
    segments = read_segments(data)
    data = data[: segments.end]
    return ImageFile(
        "JPEG",
        segments.width,
        segments.height,
        partial(decode_jpeg, data, segments),
        orientation_of(segments.exif),
        segments.icc_profile if segments.num_components == 3 else b"",
        jpeg=data if segments.num_components in (1, 3) else None,
    )


def _open_png(data: bytes) -> ImageFile:
    png = read_png(data)
    return ImageFile(
        "PNG",
        png.width,
        png.height,
        partial(_decode_png, png),
        orientation_of(png.exif),
        png.icc_profile,
        memory_factor=2 if _needs_16_bits(png) else 1,
    )


def _decode_png(png: PngChunks, size: Size) -> Pixels:
    if png.damage:
        raise ImageError(UNDECODABLE, png.damage)
    if _needs_16_bits(png):
        return decode_on_white(png.data, (png.width, png.height), size[0])
    return decode_with_pillow(png.data, "PNG", size[0], partial(_has_all_rows, png))


def _needs_16_bits(png: PngChunks) -> bool:
    """Return whether a color is transparent that Pillow, which reads 8 of 16 bits, cannot tell."""
    return png.bit_depth == 16 and png.color_type == 2 and png.has_transparent_color


def _has_all_rows(png: PngChunks, last_is_zero: bool) -> bool:
    return not (last_is_zero or png.is_interlaced) or png.is_complete()


def _open_webp(data: bytes) -> ImageFile:
    webp = read_webp(data)
    return ImageFile(
        "WEBP",
        webp.width,
        webp.height,
        partial(_decode_webp, webp),
        orientation_of(webp.exif),
        webp.icc_profile,
    )


def _decode_webp(webp: WebpChunks, size: Size) -> Pixels:
    canvas, frame = (webp.width, webp.height), (webp.frame_width, webp.frame_height)
    if frame == canvas:
        return decode_on_white(webp.frame, frame, size[0])
    pixels = np.full((webp.height, webp.width, 3), 255, np.uint8)
    pixels[webp.y : webp.y + frame[1], webp.x : webp.x + frame[0]] = decode_on_white(
        webp.frame, frame, frame[0]
    )
    return pixels


def _open_avif(data: bytes) -> ImageFile:
    data = still_avif(data)
    with opened(data, "AVIF") as image:
        return ImageFile(
            "AVIF",
            image.width,
            image.height,
            lambda size: decode_with_pillow(data, "AVIF", size[0]),
            orientation_of(image.info.get("exif", b"")),
            image.info.get("icc_profile", b"") if image.mode != "L" else b"",
            memory_factor=2,
        )


def _open_with_pillow(form: str, data: bytes) -> ImageFile:
    """Open a GIF, BMP or TIFF; Pillow itself turns a TIFF upright."""
    with opened(data, form) as image:
        profile = image.info.get("icc_profile") or b""
        is_rgb = image.mode in ("RGB", "RGBA", "RGBa", "RGBX", "P")
        return ImageFile(
            form,
            image.width,
            image.height,
            lambda size: decode_with_pillow(data, form, size[0]),
            icc_profile=profile if is_rgb else b"",
        )


_OPENERS: Final[dict[str, Callable[[bytes], ImageFile]]] = {
    "JPEG": _open_jpeg,
    "PNG": _open_png,
    "WEBP": _open_webp,
    "AVIF": _open_avif,
}
"Formats with an opener of their own; Pillow opens the others."
