"""Columns of text in Parquet files, with their types checked before any row is read.

A column of texts is of type string or binary, or dictionary-encoded; a column of captions may also
be a list of those. Binary is decoded as UTF-8 row by row, so that one bad row is one reject.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataprep.sources.lines import ListError

PARQUET_DAMAGE: Final = (pa.ArrowException, OSError, ValueError, KeyError)
"Raised by pyarrow on bytes that are not Parquet."

_BUFFER_BYTES: Final = 1 << 20
_BATCH_ROWS: Final = 64
"Few, because one row can be a book; a batch costs a tenth of a millisecond."


class Undecodable:
    """Stands for a cell that is not UTF-8; its ``repr`` shows the first bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data[:40]

    def __repr__(self) -> str:
        return f"{self._data!r} (not UTF-8)"


@dataclass(frozen=True)
class Oversized:
    """Stands for a cell that is too large to be read."""

    num_bytes: int


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        ListError: the file is not Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except PARQUET_DAMAGE as error:
        raise ListError(f"{path}: not a Parquet file ({error})") from None


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
              pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
              pa.types.is_fixed_size_binary)  # fmt: skip
    return any(check(kind) for check in checks)


def is_text_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists of texts."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in lists) and is_text(kind.value_type)


def wrong_types(schema: pa.Schema, texts: Collection[str], lists: Collection[str]) -> str | None:
    """Return what is wrong with the types of columns, or None.

    Args:
        schema: schema of the file, which has all the columns.
        texts: columns that must hold texts.
        lists: those of them that may hold lists of texts too.
    """
    for name in texts:
        kind = schema.field(name).type
        if not is_text(kind) and not (name in lists and is_text_list(kind)):
            expected = "string, binary or a list of them" if name in lists else "string or binary"
            return f"column {name} is of type {kind}, expected {expected}"
    return None


def read_cells(path: Path, group: int, columns: Collection[str]) -> Mapping[str, list[Any]]:
    """Return columns of a row group by name; a cell is a text, a list of texts, or None.

    A text that is not UTF-8 is an :class:`Undecodable`.

    Raises:
        one of PARQUET_DAMAGE: the row group is damaged.
    """
    table = pq.ParquetFile(path).read_row_group(group, list(columns))
    return {name: _decoded(_as_binary(table[name]).to_pylist()) for name in columns}


def read_column(path: Path, group: int, column: str, max_bytes: int) -> Iterator[Any]:
    """Yield the cells of a column of texts in a row group, few at a time in memory.

    A cell is as in :func:`read_cells`, or :class:`Oversized` if it has more than ``max_bytes``.

    Raises:
        one of PARQUET_DAMAGE: what follows is damaged.
    """
    file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
    batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column])
    for batch in batches:
        cells = _as_binary(pa.chunked_array([batch.column(0)]))
        sizes = pc.binary_length(cells).to_pylist() if is_text(cells.type) else [0] * len(cells)
        for cell, size in zip(cells, sizes, strict=True):
            is_large = size is not None and size > max_bytes
            yield Oversized(size) if is_large else _decoded(cell.as_py())


def _as_binary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as binary: pyarrow converts a whole column to text or nothing of it."""
    kind = column.type
    if is_text_list(kind):
        if pa.types.is_dictionary(kind.value_type):
            column = column.cast(pa.list_(kind.value_type.value_type))
        return column.cast(pa.list_(pa.large_binary()))
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    return column.cast(pa.large_binary()) if is_text(column.type) else column


def _decoded(cell: Any) -> Any:
    if isinstance(cell, list):
        return [_decoded(inner) for inner in cell]
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        return Undecodable(cell)
