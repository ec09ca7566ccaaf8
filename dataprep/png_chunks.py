"""Chunks of a PNG file (PNG specification, third edition, chapter 11).

A PNG is reduced to the chunks that its pixels need, so that damaged or huge texts, dates and
animation frames cannot make a decoder refuse it. Chunks that the pixels need must be whole.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dataprep.image_errors import UNDECODABLE, UNSUPPORTED_FORMAT, ImageError

_SIGNATURE_BYTES: Final = 8
_OF_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"Number of channels of each color type."
_PASSES: Final = (
    *((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4)),
    *((0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)),
)
"First column, column step, first row and row step of the passes of an interlaced PNG (Adam7)."
_MAX_PROFILE_BYTES: Final = 1 << 20
"Largest unzipped color profile that is used."
_PIECE_BYTES: Final = 1 << 18
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True)
class PngChunks:
    """A summary of a PNG's chunks."""

    data: bytes
    "A PNG with only the chunks that decide over its pixels."
    width: int
    height: int
    bit_depth: int
    color_type: int
    is_interlaced: bool
    has_transparent_color: bool
    "Whether one color of a PNG without alpha channel and palette is transparent."
    exif: bytes
    "EXIF data; empty if there is none."
    icc_profile: bytes
    "ICC profile of RGB pixels; empty if there is none."
    damage: str
    "Why the pixels cannot be decoded; empty if nothing is wrong."

    def is_complete(self) -> bool:
        """Return whether the file holds all rows; the pixels are unzipped again to count them."""
        unzip, num_bytes = zlib.decompressobj(), 0
        try:
            for name, content, _ in _chunks(self.data):
                rest = content if name == b"IDAT" else b""
                while rest and not unzip.eof:
                    num_bytes += len(unzip.decompress(rest, _PIECE_BYTES))
                    rest = unzip.unconsumed_tail
        except zlib.error:
            return False
        return num_bytes >= self._num_raw_bytes()

    def _num_raw_bytes(self) -> int:
        bits = self.bit_depth * _CHANNELS[self.color_type]
        total = 0
        for x, x_step, y, y_step in _PASSES if self.is_interlaced else ((0, 1, 0, 1),):
            width, height = -(-(self.width - x) // x_step), -(-(self.height - y) // y_step)
            if width > 0 and height > 0:
                total += height * (1 + -(-width * bits // 8))
        return total


def read_png(data: bytes) -> PngChunks:
    """Read a PNG's chunks.

    Raises:
        ImageError: the header or the pixels are missing.
    """
    kept, exif, profile, damage = dict[bytes, bytes](), b"", b"", ""
    pixels = list[bytes]()
    for name, content, chunk in _chunks(data):
        if name == b"CgBI":
            raise ImageError(UNSUPPORTED_FORMAT, "PNG in Apple's CgBI variant is not decoded")
        if name in _OF_PIXELS:
            if len(chunk) < 12 or int.from_bytes(chunk[-4:]) != zlib.crc32(chunk[4:-4]):
                damage = damage or f"the PNG's {name.decode()} is truncated or damaged"
            if name == b"IDAT":
                pixels.append(chunk)
            elif not pixels:
                kept.setdefault(name, content)
        elif name == b"eXIf":
            exif = exif or content
        elif name == b"iCCP":
            profile = profile or _unzipped_profile(content)
    header = kept.get(b"IHDR", b"")
    if len(header) != 13 or header[9] not in _CHANNELS or not pixels:
        raise ImageError(UNDECODABLE, "the PNG has no header or no pixels")
    color_type, palette = header[9], kept.get(b"PLTE", b"")
    if color_type == 3 and not palette:
        damage = damage or "the PNG's palette is missing"
    transparency = _usable_transparency(kept.get(b"tRNS", b""), header, len(palette) // 3)
    first = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", transparency)]
    chunks = [_chunk(name, content) for name, content in first if content]
    return PngChunks(
        data=b"".join([data[:_SIGNATURE_BYTES], *chunks, *pixels, _END]),
        width=int.from_bytes(header[:4]),
        height=int.from_bytes(header[4:8]),
        bit_depth=header[8],
        color_type=color_type,
        is_interlaced=header[12] == 1,
        has_transparent_color=bool(transparency) and color_type != 3,
        exif=exif,
        icc_profile=profile if color_type in (2, 3, 6) else b"",
        damage=damage,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield name, content and all bytes of each chunk before IEND; the last may be cut."""
    position = _SIGNATURE_BYTES
    while position + 8 <= len(data):
        name = data[position + 4 : position + 8]
        if name == b"IEND":
            return
        end = position + int.from_bytes(data[position : position + 4]) + 12
        yield name, data[position + 8 : end - 4], data[position:end]
        position = end


def _chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return len(content).to_bytes(4) + name + content + crc.to_bytes(4)


def _usable_transparency(content: bytes, header: bytes, num_colors: int) -> bytes:
    """Return a tRNS chunk's content as Pillow reads it; empty if it is not valid."""
    depth, color_type = header[8], header[9]
    if color_type == 3:
        return content[:num_colors]
    values = [int.from_bytes(content[i : i + 2]) for i in range(0, len(content), 2)]
    if len(content) != {0: 2, 2: 6}.get(color_type) or max(values) >= 1 << depth:
        return b""
    if depth in (2, 4):  # Pillow compares with values that it has scaled to 8 bits
        return (values[0] * 255 // ((1 << depth) - 1)).to_bytes(2)
    return content


def _unzipped_profile(content: bytes) -> bytes:
    """Return the profile in an iCCP chunk; empty if it is damaged or very large."""
    unzip = zlib.decompressobj()
    try:
        profile = unzip.decompress(content.partition(b"\0")[2][1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if unzip.eof else b""
