"""Chunks of PNG and WebP files: the size, the orientation and the color profile.

A PNG is reduced to the chunks that its pixels need, so that damaged or huge texts, dates and
animation frames cannot make a decoder refuse it.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dataprep.image_errors import UNDECODABLE, ImageError

_PNG_SIGNATURE_BYTES: Final = 8
_PNG_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"iCCP"})
_MAX_PROFILE_BYTES: Final = 1 << 20
"Largest unzipped color profile; Pillow refuses the whole image above it."


@dataclass(frozen=True)
class WebpChunks:
    """A summary of a WebP file's chunks."""

    width: int
    height: int
    is_animated: bool
    exif: bytes
    "EXIF data; empty if there is none."
    icc_profile: bytes
    "ICC profile; empty if there is none."


def png_of_pixels(data: bytes) -> bytes:
    """Return a PNG with only the chunks that decide over its first frame's pixels."""
    kept = [data[:_PNG_SIGNATURE_BYTES]]
    position = _PNG_SIGNATURE_BYTES
    while position + 8 <= len(data):
        name = data[position + 4 : position + 8]
        end = position + int.from_bytes(data[position : position + 4]) + 12
        if name in _PNG_CHUNKS and not (
            name == b"iCCP" and not _is_profile(data[position + 8 : end - 4])
        ):
            kept.append(data[position:end])
        if name == b"IEND":
            break
        position = end
    return b"".join(kept)


def _is_profile(content: bytes) -> bool:
    """Return whether the content of an iCCP chunk unzips to a profile of a normal size."""
    unzip = zlib.decompressobj()
    try:
        unzip.decompress(content.partition(b"\0")[2][1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    return unzip.eof


def read_webp(data: bytes) -> WebpChunks:
    """Read a WebP file's chunks (RFC 9649).

    Raises:
        ImageError: the file has no image chunk.
    """
    size: tuple[int, int] | None = None
    is_animated = False
    extra = {b"EXIF": b"", b"ICCP": b""}
    for name, content in _riff_chunks(data):
        if name == b"VP8X" and len(content) >= 10:
            is_animated = bool(content[0] & 2)
            size = 1 + _little(content[4:7]), 1 + _little(content[7:10])
        elif name == b"VP8 " and size is None:
            size = _little(content[6:8]) & 0x3FFF, _little(content[8:10]) & 0x3FFF
        elif name == b"VP8L" and size is None:
            bits = _little(content[1:5])
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif name in extra:
            extra[name] = content
    if size is None:
        raise ImageError(UNDECODABLE, "the WebP has no image chunk")
    return WebpChunks(*size, is_animated, extra[b"EXIF"], extra[b"ICCP"])


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(data):
        length = _little(data[position + 4 : position + 8])
        yield data[position : position + 4], data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
