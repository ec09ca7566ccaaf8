"""Tables that one round of slices hands to the next: sorted files, read by ranges of their key.

Each slice of a round writes one file per table, sorted by a key. A slice of a later round reads the
rows of a range of keys out of every file, and only the row groups that hold them. So the files do
not depend on the number of ranges, and no more than a range has to fit into memory.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestration import Context, Slice
from orchestration.manifest import PARTS, read_manifest
from orchestration.storage.store import Store

FOLDER: Final = "rounds"
"Folder of these tables within the stage's folder; removed when the stage is complete."
ROW_GROUP_ROWS: Final = 2048
_KEYS: Final = 1 << 64
WHOLE: Final = (0, _KEYS - 1)
"The range of all keys."


@dataclass(frozen=True)
class Exchange:
    """One table of a round."""

    folder: Store
    paths: tuple[str, ...]
    key: str
    "Name of the integer column by which each file is sorted."
    num_rows: int

    @classmethod
    def of(cls, context: Context, slices: Sequence[Slice], table: str, key: str) -> "Exchange":
        """Return a table that these slices of the running stage have written."""
        parts = [part.tables[f"{FOLDER}/{table}"] for part in context.parts_of(slices)]
        paths = tuple(part.path for part in parts if part.num_rows)
        return cls(context.folder, paths, key, sum(part.num_rows for part in parts))

    @classmethod
    def nothing(cls, folder: Store) -> "Exchange":
        """Return a table without rows."""
        return cls(folder, (), "", 0)

    def read(
        self, first: int = 0, last: int = _KEYS - 1, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows whose keys lie in a range, both ends included, file by file."""
        names = list(dict.fromkeys([self.key, *columns])) if columns else None
        for path in self.paths:
            file = pq.ParquetFile(self.folder.open(path))
            groups = self._groups(file.metadata, first, last)
            if groups:
                table = file.read_row_groups(groups, columns=names)
                keys = table[self.key].to_numpy()
                start = np.searchsorted(keys, keys.dtype.type(first), side="left")
                stop = len(keys)
                if last <= np.iinfo(keys.dtype).max:
                    stop = np.searchsorted(keys, keys.dtype.type(last), side="right")
                yield table.slice(start, stop - start)

    def arrays(
        self, first: int = 0, last: int = _KEYS - 1, *, columns: Mapping[str, type[np.generic]]
    ) -> list[NDArray[Any]]:
        """Return some columns of a range of keys as arrays, all files one after the other.

        Args:
            first: first key.
            last: last key.
            columns: types of the columns by name.
        """
        found: list[list[NDArray[Any]]] = [[np.empty(0, dtype)] for dtype in columns.values()]
        for table in self.read(first, last, list(columns)):
            for column, name in zip(found, columns, strict=True):
                column.append(table[name].to_numpy())
        return [np.concatenate(column) for column in found]

    def _groups(self, metadata: pq.FileMetaData, first: int, last: int) -> list[int]:
        column = metadata.schema.names.index(self.key)
        ranges = [
            metadata.row_group(i).column(column).statistics for i in range(metadata.num_row_groups)
        ]
        start = bisect.bisect_left(ranges, first, key=lambda group: group.max)
        stop = bisect.bisect_right(ranges, last, key=lambda group: group.min)
        return list(range(start, stop))


def written(
    table: str, columns: Mapping[str, NDArray[Any] | pa.Array], key: str
) -> dict[str, pa.Table]:
    """Return one table of a round, sorted by its key, as the tables of a slice's output."""
    order = np.argsort(columns[key], kind="stable")
    sorted_columns = {
        name: values.take(pa.array(order))
        if isinstance(values, pa.Array)
        else to_column(values[order])
        for name, values in columns.items()
    }
    return {f"{FOLDER}/{table}": pa.table(sorted_columns)}


def remove_rounds(folder: Store) -> None:
    """Remove the tables and parts of the rounds of a committed stage; no reader of it needs them.

    An earlier attempt may have had other partitions, so every other part is removed.
    """
    kept = {f"{part.slice}.json" for part in read_manifest(folder).parts}
    for name in folder.names(PARTS, ".json"):
        if name not in kept:
            folder.remove(f"{PARTS}/{name}")
    folder.remove(FOLDER)


def key_range(number: int, total: int) -> tuple[int, int]:
    """Return the first and last key of one of ``total`` equal ranges of unsigned 64-bit keys."""
    return number * _KEYS // total, (number + 1) * _KEYS // total - 1


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers that are spread evenly over all keys: a bijection (SplitMix64's finalizer)."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def to_column(values: NDArray[Any]) -> pa.Array:
    """Return an array as a column; a row of a byte matrix becomes a binary value."""
    if values.ndim == 1:
        return pa.array(values)
    data = np.ascontiguousarray(values)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(values.shape[1]), len(values), [None, pa.py_buffer(data)]
    )


def to_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as an array; binary values of one size become the rows of a byte matrix."""
    if not pa.types.is_fixed_size_binary(column.type):
        return column.to_numpy()
    size = column.type.byte_width
    blocks = [np.empty((0, size), np.uint8)]
    for chunk in column.chunks:
        values = np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, size)
        blocks.append(values[chunk.offset : chunk.offset + len(chunk)])
    return np.concatenate(blocks)
