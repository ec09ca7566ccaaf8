"""Decoding with OpenCV: JPEG, at a fraction where that is enough, and frames of WebP.

A JPEG whose scans are incomplete is recognized although an end marker follows, by decoding it again
where its structure or its last pixel leaves doubt. What may go unnoticed is the loss of the end of
the last scan of a progressive JPEG, which only adds the lowest bit of some details.
"""

import zlib
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.compositing import Pixels, join_strips, opencv_on_white, pillow_on_white
from dataprep.image_errors import UNDECODABLE, ImageError
from dataprep.jpeg_segments import JpegSegments
from dataprep.pillow_decoding import opened

# Each failure becomes a reject with a reason; OpenCV's log would repeat it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_REDUCED: Final = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}
"""libjpeg leaves out the frequencies that a smaller image cannot show: faster, and no aliasing.
The flags called gray only lack the bit for color."""
_RGB: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_FILL: Final = 128
"Gray with which libjpeg fills the missing part of a scan."
_PADDING: Final = bytes(range(1, 255)) * 4


def decode_stored(jpeg: bytes | memoryview, sample_id: str = "") -> Pixels:
    """Return the pixels of a JPEG that this pipeline stored.

    Args:
        jpeg: bytes of the image.
        sample_id: id of the image, which the error names.

    Raises:
        ImageError: the image is empty or damaged.
    """
    try:
        return _imdecode(jpeg, _RGB)
    except ImageError as error:
        where = f"the stored image of {sample_id or 'a sample'} is damaged ({error.detail})"
        todo = "delete the output folder of the stage that stored it and run again"
        raise ImageError(error.reason, f"{where}: {todo}") from None


def decode_jpeg(data: bytes, segments: JpegSegments, size: tuple[int, int]) -> Pixels:
    """Return a JPEG's pixels, decoded at a fraction if that keeps a size (width, height).

    Raises:
        ImageError: the image is damaged or truncated.
    """
    short_side, shorter = min(size), min(segments.width, segments.height)
    scale = next((each for each in _REDUCED if shorter // each >= short_side), 1)
    flags = _RGB | _REDUCED.get(scale, 0)
    pixels = _imdecode(data, flags)
    if pixels.shape != (-(-segments.height // scale), -(-segments.width // scale), 3):
        raise ImageError(UNDECODABLE, "the JPEG's size is not the one in its header")
    if not _may_be_truncated(pixels, segments):
        return pixels
    digest, padded = zlib.crc32(pixels.data), _padded(data, segments)
    del pixels  # before it is decoded again, to save memory
    if segments.num_components != 4:  # OpenCV and Pillow agree on all colors but CMYK
        pixels = _without_warnings(padded, scale)
        if zlib.crc32(pixels.data) == digest:
            return pixels
    pixels = _imdecode(padded, flags)
    if zlib.crc32(pixels.data) != digest:
        raise ImageError(UNDECODABLE, "truncated: a scan of the JPEG is incomplete")
    return pixels


def decode_on_white(data: bytes, size: tuple[int, int], width: int) -> Pixels:
    """Return an image in RGB on white, scaled down to ``width`` columns.

    Args:
        data: the image file, of 8 or 16 bits per channel.
        size: width and height that its header gives.
        width: number of columns of the result.

    Raises:
        ImageError: the image is damaged or truncated.
    """
    found = _imdecode(data, cv2.IMREAD_UNCHANGED)
    if found.shape[1::-1] != size:
        raise ImageError(UNDECODABLE, "the size of the image is not the one in its header")
    return join_strips(opencv_on_white(found), width, size[1])


def _may_be_truncated(pixels: Pixels, segments: JpegSegments) -> bool:
    """Return whether scans are missing, or the last corner looks like libjpeg's filling."""
    corner = pixels[-1, -1]
    is_filled = bool((corner == _FILL).all())
    if segments.num_components == 4:
        is_filled = np.ptp(corner) == 0
    return is_filled or segments.may_lack_data


def _padded(data: bytes, segments: JpegSegments) -> bytes:
    """Return a JPEG with more data in each scan, which changes the pixels of incomplete scans."""
    pieces, start = list[bytes](), 0
    for end in segments.scan_ends:
        pieces += [data[start:end], _PADDING]
        start = end
    return b"".join([*pieces, data[start:]])


def _without_warnings(data: bytes, scale: int) -> Pixels:
    """Return a JPEG's pixels at a fraction, decoded by Pillow; nothing if Pillow cannot.

    OpenCV prints a warning for each padded scan.
    """
    try:
        with opened(data, "JPEG") as image:
            image.draft(None, (image.width // scale, image.height // scale))
            image.load()
            return join_strips(pillow_on_white(image, (0, 0, *image.size)), *image.size)
    except ImageError:
        return np.empty((0, 0, 3), np.uint8)


def _imdecode(data: bytes | memoryview, flags: int) -> NDArray[Any]:
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(UNDECODABLE, str(error.err)) from None
    if found is None:
        raise ImageError(UNDECODABLE, f"OpenCV cannot decode these {len(data)} bytes")
    return np.asarray(found)
