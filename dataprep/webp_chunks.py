"""Chunks of a WebP file (RFC 9649): the first frame as a WebP of its own, and the metadata."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dataprep.image_errors import UNDECODABLE, ImageError

_ALPHA_FLAG: Final = 0x10
_FRAME_HEADER_BYTES: Final = 16
_CODED: Final = (b"VP8 ", b"VP8L")
_MIN_CODED_BYTES: Final = 18
"Header of a chunk of coded pixels, and the fields in it that give the size."


@dataclass(frozen=True)
class WebpChunks:
    """A summary of a WebP file's chunks."""

    width: int
    "Width of the canvas in pixels."
    height: int
    frame: bytes
    "The first frame alone, as a WebP without metadata."
    x: int
    "Column of the frame's left edge on the canvas."
    y: int
    frame_width: int
    frame_height: int
    exif: bytes
    "EXIF data; empty if there is none."
    icc_profile: bytes
    "ICC profile; empty if there is none."


def read_webp(data: bytes) -> WebpChunks:
    """Read a WebP file's chunks.

    Raises:
        ImageError: the first frame is missing or truncated, or does not fit its canvas.
    """
    canvas: tuple[int, int] | None = None
    frame, x, y, is_animated = dict[bytes, bytes](), 0, 0, False
    extra = {b"EXIF": b"", b"ICCP": b""}
    for name, content, chunk in _chunks(data, 12):
        if name == b"VP8X" and len(content) >= 10 and not (canvas or frame):
            canvas = 1 + _little(content[4:7]), 1 + _little(content[7:10])
        elif name == b"ANMF" and not frame:
            is_animated, x, y = True, 2 * _little(content[:3]), 2 * _little(content[3:6])
            for inner, _, each in _chunks(content, _FRAME_HEADER_BYTES):
                _add(frame, inner, each)
        elif name in extra:
            extra[name] = extra[name] or content
        elif not is_animated:
            _add(frame, name, chunk)
    coded = next((frame[name] for name in _CODED if name in frame), b"")
    if any(len(chunk) < 8 + _little(chunk[4:8]) for chunk in frame.values()):
        raise ImageError(UNDECODABLE, "truncated: the WebP's first frame is incomplete")
    if len(coded) < _MIN_CODED_BYTES:
        raise ImageError(UNDECODABLE, "the WebP has no frame")
    width, height = _size(coded)
    canvas = canvas or (width, height)
    fits = x + width <= canvas[0] and y + height <= canvas[1]
    if not (fits if is_animated else canvas == (width, height)):
        raise ImageError(UNDECODABLE, "the WebP's first frame does not fit its canvas")
    alpha = frame.get(b"ALPH", b"") if b"VP8 " in frame else b""
    single = _file(alpha, coded, width, height)
    return WebpChunks(*canvas, single, x, y, width, height, extra[b"EXIF"], extra[b"ICCP"])


def _add(frame: dict[bytes, bytes], name: bytes, chunk: bytes) -> None:
    """Add a chunk of pixels to a frame that is not complete; its last one is the coded image."""
    if name in (b"ALPH", *_CODED) and not any(coded in frame for coded in _CODED):
        frame.setdefault(name, chunk)


def _chunks(data: bytes, position: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield name, content and all bytes of each chunk; the last may be cut."""
    while position + 8 <= len(data):
        length = _little(data[position + 4 : position + 8])
        chunk = data[position : position + 8 + length]
        yield chunk[:4], chunk[8:], chunk
        position += 8 + length + length % 2


def _size(coded: bytes) -> tuple[int, int]:
    """Return the width and height in the header of a VP8 or VP8L chunk."""
    if coded[:4] == b"VP8 ":
        return _little(coded[14:16]) & 0x3FFF, _little(coded[16:18]) & 0x3FFF
    bits = _little(coded[9:13])
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


def _file(alpha: bytes, coded: bytes, width: int, height: int) -> bytes:
    """Return a WebP of one frame; an alpha chunk needs an extended header."""
    chunks = [coded]
    if alpha:
        sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        header = b"VP8X" + (10).to_bytes(4, "little") + bytes([_ALPHA_FLAG, 0, 0, 0]) + sizes
        chunks = [header, alpha, coded]
    body = b"".join(chunk + bytes(len(chunk) % 2) for chunk in chunks)
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
