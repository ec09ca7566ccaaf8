"""Random access to gzip files through indexes of restart points.

An index is indexed_gzip's file format (``GZIDX``, described in its ``zran.h``): a header, a table
of points, and the window of output that precedes each point. A large file has several indexes, one
for each segment of its content (see ``gzip_pass``). :func:`excerpt` cuts out the few points around
a range, so that no worker loads the index of a terabyte.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Final

from indexed_gzip.indexed_gzip import CrcError, IndexedGzipFile, NotCoveredError, ZranError


class ChecksumError(ValueError):
    """The content of a gzip file does not have its checksum, or the file is truncated."""


GZIP_DAMAGE: Final = (CrcError, NotCoveredError, ZranError, ChecksumError)
"Raised on damaged bytes."
SPACING_BYTES: Final = 1 << 24
"Distance between points. With a window per point, the indexes are 1/512 of the content."
_MAGIC: Final = b"\x1f\x8b"
_BUFFER_BYTES: Final = 1 << 25
"Largest buffer. A refill inflates from the point before it, so it must exceed their distance."
_MIN_BUFFER_BYTES: Final = 1 << 16
_HEAD: Final = struct.Struct("<5sBBQQIII")
_POINT: Final = struct.Struct("<QQBB")
_FORM: Final = (b"GZIDX", 1)


class IndexFileError(ValueError):
    """A file is not an index, is truncated, or belongs to another archive."""


@dataclass(frozen=True)
class Point:
    """A place at which inflation can begin."""

    compressed: int
    "Offset in the file."
    offset: int
    "Offset in the content."
    bits: int
    "Bits of the byte before ``compressed`` that belong to the point."
    has_window: int
    "1 if the output before the point is needed, 0 at the beginning of a gzip member."


class Index:
    """An opened index, of which only the table of points is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the table of points.

        Raises:
            IndexFileError: the file is not an index or is truncated.
        """
        self._file = file
        file.seek(0)
        magic, version, self._flags, *sizes = _HEAD.unpack(_exactly(file, _HEAD.size))
        if (magic, version) != _FORM:
            raise IndexFileError(f"not an index of version {_FORM[1]}: {magic!r}, {version}")
        self.compressed_bytes, self.content_bytes, self.spacing, self.window_bytes, count = sizes
        table = _POINT.iter_unpack(_exactly(file, _POINT.size * count))
        self.points = [Point(*numbers) for numbers in table]
        self._windows = _HEAD.size + _POINT.size * count
        has_window = (point.has_window for point in self.points)
        self._windows_before = list(accumulate(has_window, initial=0))

    def window(self, number: int) -> bytes:
        """Return the window of a point; empty if it has none."""
        self._file.seek(self._windows + self.window_bytes * self._windows_before[number])
        return _exactly(self._file, self.window_bytes * self.points[number].has_window)

    def cut(self, first: int) -> bytes:
        """Return an index of the points from number ``first`` on."""
        numbers = range(first, len(self.points))
        return self.with_points({self.points[i]: self.window(i) for i in numbers})

    def with_points(self, windows: Mapping[Point, bytes]) -> bytes:
        """Return an index of the same file with other points, given with their windows."""
        points = sorted(windows, key=lambda point: (point.offset, point.compressed))
        sizes = (self.compressed_bytes, self.content_bytes, self.spacing, self.window_bytes)
        table = (_POINT.pack(*vars(point).values()) for point in points)
        head = _HEAD.pack(*_FORM, self._flags, *sizes, len(points))
        return b"".join([head, *table, *(windows[point] for point in points)])


def is_gzip(path: Path) -> bool:
    """Return whether a file begins with gzip's magic bytes."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def open_range(path: Path, indexes: Sequence[BinaryIO], offset: int, num_bytes: int) -> Any:
    """Return a gzip file, opened at ``offset`` of its content to read ``num_bytes`` in order.

    Args:
        path: path of the gzip file.
        indexes: indexes of consecutive segments that cover the range.
        offset: offset of the range in the content.
        num_bytes: length of the range.

    Raises:
        IndexFileError: an index is damaged or belongs to another file.
    """
    buffer_bytes = min(max(num_bytes, _MIN_BUFFER_BYTES), _BUFFER_BYTES)
    file = IndexedGzipFile(path, spacing=SPACING_BYTES, buffer_size=buffer_bytes)
    try:
        file.import_index(fileobj=io.BytesIO(excerpt(indexes, offset, num_bytes)))
        file.seek(offset)
    except (ZranError, NotCoveredError) as error:
        raise IndexFileError(f"not the index of {path} ({error})") from None
    return file


def excerpt(indexes: Sequence[BinaryIO], offset: int, num_bytes: int) -> bytes:
    """Return an index of the points that a range of the content needs.

    Raises:
        IndexFileError: a file is not an index or is truncated.
    """
    opened = [Index(file) for file in indexes]
    starts = sorted(point.offset for index in opened for point in index.points)
    first = max((start for start in starts if start <= offset), default=0)
    last = min((start for start in starts if start >= offset + num_bytes), default=None)
    found = {
        point: index.window(number)
        for index in opened
        for number, point in enumerate(index.points)
        if first <= point.offset and (last is None or point.offset <= last)
    }
    return opened[0].with_points(found)


def _exactly(file: BinaryIO, num_bytes: int) -> bytes:
    data = file.read(num_bytes)
    if len(data) != num_bytes:
        raise IndexFileError("the index is truncated")
    return data
