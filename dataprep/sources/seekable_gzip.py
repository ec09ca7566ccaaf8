"""Random access to gzip files through an index of restart points, made in one pass.

The index is indexed_gzip's file format (``GZIDX``, described in its ``zran.h``): a header, a table
of points, and the window of output that precedes each point. :func:`excerpt` cuts out the few
points around a range, so that no worker loads the index of a terabyte.
"""

import io
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from indexed_gzip.indexed_gzip import CrcError, IndexedGzipFile, NotCoveredError, ZranError

GZIP_DAMAGE: Final = (CrcError, NotCoveredError, ZranError)
"Raised by indexed_gzip on damaged bytes."
_MAGIC: Final = b"\x1f\x8b"
_SPACING_BYTES: Final = 1 << 24
"Distance between points. With a window per point, the index is 1/512 of the content."
_BUFFER_BYTES: Final = 1 << 25
"Largest buffer. A refill inflates from the point before it, so it must exceed their distance."
_MIN_BUFFER_BYTES: Final = 1 << 16
_HEAD: Final = struct.Struct("<5sBBQQIII")
_POINT: Final = struct.Struct("<QQBB")
_FORM: Final = (b"GZIDX", 1)


class IndexFileError(ValueError):
    """A file is not an index, is truncated, or belongs to another archive."""


def is_gzip(path: Path) -> bool:
    """Return whether a file begins with gzip's magic bytes."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def build_index(path: Path, index: Path) -> Any:
    """Read a gzip file once and write its index; return the file, opened for random access.

    Raises:
        one of GZIP_DAMAGE: the file is damaged. A truncated file raises nothing and looks shorter.
    """
    file = IndexedGzipFile(path, spacing=_SPACING_BYTES, buffer_size=_MIN_BUFFER_BYTES)
    file.build_full_index()
    file.export_index(index)
    return file


def open_range(path: Path, index: BinaryIO, offset: int, num_bytes: int) -> Any:
    """Return a gzip file, opened at ``offset`` of its content to read ``num_bytes`` in order.

    Raises:
        IndexFileError: ``index`` is damaged or belongs to another file.
    """
    buffer_bytes = min(max(num_bytes, _MIN_BUFFER_BYTES), _BUFFER_BYTES)
    file = IndexedGzipFile(path, spacing=_SPACING_BYTES, buffer_size=buffer_bytes)
    try:
        file.import_index(fileobj=io.BytesIO(excerpt(index, offset, num_bytes)))
        file.seek(offset)
    except (ZranError, NotCoveredError) as error:
        raise IndexFileError(f"not the index of {path} ({error})") from None
    return file


def excerpt(index: BinaryIO, offset: int, num_bytes: int) -> bytes:
    """Return an index of the points that a range of the content needs.

    Raises:
        IndexFileError: the file is not an index or is truncated.
    """
    index.seek(0)
    magic, version, *head, window_bytes, num_points = _HEAD.unpack(_exactly(index, _HEAD.size))
    if (magic, version) != _FORM:
        raise IndexFileError(f"not an index of version {_FORM[1]}: {magic!r}, version {version}")
    points = list(_POINT.iter_unpack(_exactly(index, _POINT.size * num_points)))
    starts = [point[1] for point in points]
    first = max((i for i, start in enumerate(starts) if start <= offset), default=0)
    last = next((i for i, start in enumerate(starts) if start >= offset + num_bytes), len(starts))
    kept = points[first : last + 1]
    windows_before = sum(point[3] for point in points[:first])
    index.seek(_HEAD.size + _POINT.size * num_points + window_bytes * windows_before)
    windows = _exactly(index, window_bytes * sum(point[3] for point in kept))
    return b"".join([
        _HEAD.pack(magic, version, *head, window_bytes, len(kept)),
        *(_POINT.pack(*point) for point in kept),
        windows,
    ])  # fmt: skip


def _exactly(file: BinaryIO, num_bytes: int) -> bytes:
    data = file.read(num_bytes)
    if len(data) != num_bytes:
        raise IndexFileError("the index is truncated")
    return data
