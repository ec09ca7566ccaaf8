"""One pass over a gzip file of any size: its content in order, and indexes for random access.

The content is cut into segments, each with an index of its own (see ``seekable_gzip``), so that
neither the pass nor a later reader holds the index of the whole file. The checksum of every gzip
member is verified. A :class:`Position` between two segments is all that a later pass needs to go on
from there. Each byte is inflated twice, in two threads: for the points of the next segment, and to
be read, because zlib gives the content of a segment only once its points are known.
"""

import gzip
import io
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

from indexed_gzip.indexed_gzip import IndexedGzipFile

from dataprep.sources import seekable_gzip
from dataprep.sources.seekable_gzip import ChecksumError, Index, Point

SEGMENT_BYTES: Final = 1 << 30
"Content of a segment: its index has 2 MB, and a terabyte has 1000 segments."
_READ_BYTES: Final = 1 << 16
_MAX_READ_BYTES: Final = 1 << 25
_TAIL_BYTES: Final = 1 << 10
_MAX_TAIL_BYTES: Final = 1 << 17
"Longest header of a gzip member, whose name ends at 64 KiB in practice."
_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True)
class Position:
    """Where a pass stands between two segments; all numbers are JSON-able."""

    num_segments: int = 0
    "Number of segments that are complete."
    offset: int = 0
    "Offset of the next segment in the content."
    crc32: int = 0
    "Checksum of the current gzip member up to here."
    member_bytes: int = 0
    "Length of the current gzip member up to here."
    compressed_bytes: int = 0
    "Number of bytes of the file before it."
    is_end: bool = False
    "Whether the file ends here."


class GzipPass:
    """The content of a gzip file, read forward from a position."""

    def __init__(self, path: Path, begun: Position, index: bytes | None) -> None:
        """Begin at a position.

        Args:
            path: path of the file.
            begun: the position; ``Position()`` is the beginning.
            index: index of the segment before the position; None at the beginning.
        """
        self.position = begun
        "Position behind the last segment that was read to its end."
        self._path = path
        self._segments = _segments(path, index)

    def segments(self) -> Generator[tuple[bytes, Iterator[bytes]], None, None]:
        """Yield (index, content in blocks) of each segment; read a segment to its end.

        Close the generator if it is not read to its end: it has a thread.

        Raises:
            one of GZIP_DAMAGE: the file is damaged or truncated.
        """
        if self.position.is_end:
            return
        with ThreadPoolExecutor(1) as thread:
            ready = thread.submit(next, self._segments, None)
            while (index := ready.result()) is not None:
                ready = thread.submit(next, self._segments, None)
                yield index, self._content(Index(io.BytesIO(index)), index)

    def _content(self, index: Index, data: bytes) -> Iterator[bytes]:
        """Yield the blocks of one segment and move the position behind it."""
        at = self.position
        crc32, size = at.crc32, at.member_bytes
        with IndexedGzipFile(self._path) as file, self._path.open("rb") as raw:
            file.import_index(fileobj=io.BytesIO(data))
            for start, stop in pairwise(index.points):
                for block in _blocks(file, start, stop):
                    crc32, size = zlib.crc32(block, crc32), size + len(block)
                    yield block
                if not stop.has_window:
                    _check(raw, stop, _trailer(crc32, size) + _MAGIC)
                    crc32 = size = 0
            last = index.points[-1]
            is_end = bool(index.content_bytes) and last.offset == index.content_bytes
            if is_end:
                _check_end(raw, index.compressed_bytes, _trailer(crc32, size))
        number, here = at.num_segments + 1, last.compressed
        self.position = Position(number, last.offset, crc32, size, here, is_end)


def _segments(path: Path, index: bytes | None) -> Iterator[bytes]:
    """Yield the indexes of the segments in order; each begins with the last point before it."""
    while True:
        spacing = seekable_gzip.SPACING_BYTES
        file = IndexedGzipFile(path, spacing=spacing, buffer_size=_READ_BYTES)
        start = 0
        if index is None and _is_empty(path):
            return  # indexed_gzip cannot seek in it
        if index is not None:
            before = Index(io.BytesIO(index))
            start = before.points[-1].offset
            # indexed_gzip goes on from the last of several points, but not from a single one.
            last_two = before.cut(len(before.points) - 2)
            file.import_index(fileobj=io.BytesIO(last_two))
        file.seek(start + SEGMENT_BYTES)
        out = io.BytesIO()
        file.export_index(fileobj=out)
        file.close()
        whole = Index(out)
        index = whole.cut(0 if index is None else 1)
        yield index
        if whole.content_bytes and whole.points[-1].offset >= whole.content_bytes:
            return


def _is_empty(path: Path) -> bool:
    """Return whether a file is a gzip file without content."""
    try:
        with gzip.open(path) as file:
            return not file.read(1)
    except (OSError, EOFError, zlib.error):
        return False


def _blocks(file: Any, start: Point, stop: Point) -> Iterator[bytes]:
    """Yield the content between two points."""
    at = start.offset
    while at < stop.offset:  # a read that begins at a point inflates nothing twice
        block: bytes = file.pread(min(stop.offset - at, _MAX_READ_BYTES), at)
        if not block:
            raise ChecksumError(f"truncated at byte {at} of its content")
        at += len(block)
        yield block


def _trailer(crc32: int, size: int) -> bytes:
    return crc32.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _check(raw: BinaryIO, point: Point, expected: bytes) -> None:
    """Check that the member before a point has its checksum: it is followed by a header.

    Raises:
        ChecksumError: it has another one.
    """
    for num_bytes in (_TAIL_BYTES, _MAX_TAIL_BYTES):
        start = max(point.compressed - num_bytes, 0)
        raw.seek(start)
        if expected in raw.read(point.compressed - start):
            return
    raise ChecksumError(f"wrong checksum before byte {point.offset} of its content")


def _check_end(raw: BinaryIO, file_bytes: int, expected: bytes) -> None:
    """Check the checksum at the end of the file, behind which zeros may follow.

    Raises:
        ChecksumError: it has another one, or none as the file is truncated.
    """
    at, tail = file_bytes, b""
    while at and len(tail) < len(expected):  # zeros may fill blocks of a tape or a disk
        at = max(at - _MAX_TAIL_BYTES, 0)
        raw.seek(at)
        tail = raw.read(_MAX_TAIL_BYTES + len(expected)).rstrip(b"\0")
    if not tail.endswith(expected.rstrip(b"\0")):
        raise ChecksumError("wrong checksum at its end: damaged or truncated")
