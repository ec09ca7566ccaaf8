"""Image formats: each function encodes upright RGB pixels as the bytes of a file.

Copies are made from the decoded JPEG of the image, as a site that copies an image makes them.
"""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
from PIL import ExifTags
from PIL import Image as PillowImage

from dataprep.miniweb.drawing import Pixels

BOMB_SIDE: Final = 30_000
BIG: Final = (3000, 2200)
"Width and height of the ``big`` format; the caller draws an image of that size."
_QUALITY: Final = 88
_COPY_QUALITY: Final = 65
_RESIZED: Final = 0.6
"Scale of a resized copy."
_CROPPED: Final = 0.02
"Fraction that is cropped at each side."
_TURNED_LEFT: Final = 6
"EXIF orientation of an image that becomes upright by a clockwise quarter turn."


def jpeg(pixels: Pixels, quality: int = _QUALITY) -> bytes:
    """Return an ordinary baseline JPEG."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return _opencv_bytes(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])


def png(pixels: Pixels) -> bytes:
    """Return an ordinary RGB PNG."""
    return _opencv_bytes(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def copied_size(copy: str, width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) of a copy of an image; ``copy`` is a key of ``COPIES``."""
    if copy == "resized":
        return round(width * _RESIZED), round(height * _RESIZED)
    if copy == "cropped":
        return width - 2 * round(width * _CROPPED), height - 2 * round(height * _CROPPED)
    return width, height


def _opencv_bytes(suffix: str, pixels: Any, settings: list[int] | None = None) -> bytes:
    ok, data = cv2.imencode(suffix, pixels, settings or [])
    if not ok:
        raise RuntimeError(f"cannot encode {pixels.shape} as {suffix}")
    return bytes(data)


def _pillow_bytes(image: PillowImage.Image, form: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def _palette_png(pixels: Pixels) -> bytes:
    return _pillow_bytes(PillowImage.fromarray(pixels).quantize(64), "PNG")


def _deep_png(pixels: Pixels) -> bytes:
    deep = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    return _opencv_bytes(".png", deep)


def _alpha_png(pixels: Pixels) -> bytes:
    """Return a PNG whose opacity falls to zero at the right side."""
    alpha = np.linspace(255, 0, pixels.shape[1]).astype(np.uint8)
    layer = np.broadcast_to(alpha[:, None], (*pixels.shape[:2], 1))
    return _pillow_bytes(PillowImage.fromarray(np.concatenate([pixels, layer], 2)), "PNG")


def _gray_jpeg(pixels: Pixels) -> bytes:
    return _pillow_bytes(PillowImage.fromarray(pixels).convert("L"), "JPEG", quality=_QUALITY)


def _cmyk_jpeg(pixels: Pixels) -> bytes:
    return _pillow_bytes(PillowImage.fromarray(pixels).convert("CMYK"), "JPEG", quality=_QUALITY)


def _turned_jpeg(pixels: Pixels) -> bytes:
    exif = PillowImage.Exif()
    exif[ExifTags.Base.Orientation] = _TURNED_LEFT
    stored = PillowImage.fromarray(np.ascontiguousarray(np.rot90(pixels)))
    return _pillow_bytes(stored, "JPEG", quality=_QUALITY, exif=exif)


def _progressive_jpeg(pixels: Pixels) -> bytes:
    image = PillowImage.fromarray(pixels)
    return _pillow_bytes(image, "JPEG", quality=_QUALITY, progressive=True)


def _animated_gif(pixels: Pixels) -> bytes:
    first, second = (PillowImage.fromarray(p).quantize(64) for p in (pixels, 255 - pixels))
    return _pillow_bytes(first, "GIF", save_all=True, append_images=[second], duration=200, loop=0)


def _webp(pixels: Pixels) -> bytes:
    return _pillow_bytes(PillowImage.fromarray(pixels), "WEBP", quality=80)


def _bmp(pixels: Pixels) -> bytes:
    return _pillow_bytes(PillowImage.fromarray(pixels), "BMP")


@lru_cache
def _bomb_png() -> bytes:
    """Return a black PNG of one bit per pixel: kilobytes that decode to gigabytes."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 1, 0, 0, 0, 0)
    row = bytes(1 + -(-BOMB_SIDE // 8))
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row * 1000) for _ in range(BOMB_SIDE // 1000))
    chunks = ((b"IHDR", header), (b"IDAT", rows + packer.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _svg(pixels: Pixels) -> bytes:
    height, width = pixels.shape[:2]
    red, green, blue = pixels[height // 2, width // 2].tolist()
    return (
        '<?xml version="1.0"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f'<circle cx="50%" cy="50%" r="25%" fill="rgb({red},{green},{blue})"/></svg>\n'
    ).encode()


def _decoded_jpeg(pixels: Pixels) -> Pixels:
    """Return the pixels after JPEG compression."""
    found = cv2.imdecode(np.frombuffer(jpeg(pixels), np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(found, np.uint8)


def _reencoded(pixels: Pixels) -> bytes:
    return jpeg(_decoded_jpeg(pixels), _COPY_QUALITY)


def _resized(pixels: Pixels) -> bytes:
    size = copied_size("resized", pixels.shape[1], pixels.shape[0])
    smaller = cv2.resize(_decoded_jpeg(pixels), size, interpolation=cv2.INTER_AREA)
    return jpeg(np.asarray(smaller, np.uint8))


def _cropped(pixels: Pixels) -> bytes:
    width, height = copied_size("cropped", pixels.shape[1], pixels.shape[0])
    left, top = (pixels.shape[1] - width) // 2, (pixels.shape[0] - height) // 2
    return jpeg(
        np.ascontiguousarray(_decoded_jpeg(pixels)[top : top + height, left : left + width])
    )


COPIES: Final[Mapping[str, Callable[[Pixels], bytes]]] = {
    "exact": jpeg,
    "reencoded": _reencoded,
    "resized": _resized,
    "cropped": _cropped,
}
"Copies of a JPEG."

FORMATS: Final[Mapping[str, Callable[[Pixels], bytes]]] = {
    "jpeg": jpeg,
    "palette": _palette_png,
    "deep": _deep_png,
    "alpha": _alpha_png,
    "gray": _gray_jpeg,
    "cmyk": _cmyk_jpeg,
    "turned": _turned_jpeg,
    "progressive": _progressive_jpeg,
    "animated": _animated_gif,
    "webp": _webp,
    "bmp": _bmp,
    "bomb": lambda _: _bomb_png(),
    "big": jpeg,
    "svg": _svg,
    "empty": lambda _: b"",
    **COPIES,
}
"Every image format, copies included."

SUFFIXES: Final = {
    "palette": ".png",
    "deep": ".png",
    "alpha": ".png",
    "bomb": ".png",
    "animated": ".gif",
    "webp": ".webp",
    "bmp": ".bmp",
    "svg": ".svg",
}
"File name extensions other than ``.jpg``."
