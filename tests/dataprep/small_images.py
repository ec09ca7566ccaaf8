"""Small images, and what becomes of them when they are stored."""

import io
import struct
import zlib
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

from dataprep.images import ImageError, ImageRules, decode_stored, store_image

RULES: Final = ImageRules(short_side=256, jpeg_quality=95, min_side=16, max_pixels=200_000_000)
PNG: Final = b"\x89PNG\r\n\x1a\n"


def gradient(width: int = 96, height: int = 64) -> np.ndarray:
    """Return smooth RGB pixels, (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x + 90], -1).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, form: str, **more: Any) -> bytes:
    """Return an image file written by Pillow."""
    file = io.BytesIO()
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    opened.save(file, form, **more)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a PNG chunk."""
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def shown(data: bytes, rules: ImageRules = RULES) -> np.ndarray:
    """Return the pixels of the stored image as signed integers."""
    return decode_stored(store_image(data, rules).jpeg).astype(int)


def error_of(data: bytes, rules: ImageRules = RULES) -> ImageError:
    """Return why a file is not stored."""
    with pytest.raises(ImageError) as caught:
        store_image(data, rules)
    return caught.value
