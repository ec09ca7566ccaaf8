"""Datasets: the committed rows of a stage, read by row range.

A row number is the row's index in the table, counted over the parts in order. Slices are ranges of
row numbers. Opening a part checks that it exists and that its size, number of rows and columns
agree with the manifest. The digest costs a complete read and is checked by
:mod:`orchestration.integrity` on request.
"""

import bisect
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from orchestration.errors import ManifestError, PipelineError, StoreError
from orchestration.manifest import Manifest, TablePart, columns_of, file_of, read_manifest
from orchestration.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_MAX_CACHED_FOOTERS = 1024
_READERS = 16
REPAIR: Final = "`beit3 run … --repair` computes it again"
"What to do about a damaged file."


@dataclass(frozen=True)
class RowGroup:
    """One row group of a table: the unit in which training reads rows."""

    part: TablePart
    index: int
    "Index of the row group within its part."
    num_rows: int
    first_row: int
    "Row number of its first row."


@dataclass(frozen=True)
class Dataset:
    """A committed table of a stage. Pickling keeps the folder and table name only."""

    folder: Store
    manifest: Manifest
    name: str = "data"
    "Name of the table."

    def __reduce__(self) -> tuple[object, ...]:
        # A manifest of many parts is large: a worker reads it from the store instead.
        return Dataset.open, (self.folder, self.name)

    @classmethod
    def open(cls, folder: Store, table: str = "data") -> "Dataset":
        """Open one table of a stage's committed output.

        Raises:
            StoreError: the stage has not been committed.
            ManifestError: the manifest is damaged.
        """
        return cls(folder, read_manifest(folder), table)

    def table(self, name: str) -> "Dataset":
        """Return the dataset of another table of the same stage."""
        return Dataset(self.folder, self.manifest, name)

    @cached_property
    def parts(self) -> list[TablePart]:
        """The Parquet files of this table, in slice order."""
        return [p.tables[self.name] for p in self.manifest.parts if self.name in p.tables]

    @cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(part.num_rows for part in self.parts))

    @cached_property
    def _footers(self) -> "OrderedDict[str, pq.FileMetaData]":
        return OrderedDict()

    @property
    def num_rows(self) -> int:
        """Number of rows in the table."""
        return self._ends[-1] if self._ends else 0

    def row_groups(self) -> list[RowGroup]:
        """Return every row group, in row order."""
        groups, first = [], 0
        for part in self.parts:
            for index, num_rows in enumerate(part.row_groups):
                groups.append(RowGroup(part, index, num_rows, first))
                first += num_rows
        return groups

    def column_bytes(self, column: str) -> list[int]:
        """Return the size of a column in each of :meth:`row_groups`, in bytes before compression.

        Parquet stores a value that a row group repeats once, so such a column counts as smaller.

        Raises:
            ManifestError: a part is missing or disagrees with the manifest.
            StoreError: the store cannot be read at present.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            sizes = pool.map(lambda part: self._column_bytes(part, column), self.parts)
            return [size for of_part in sizes for size in of_part]

    def _column_bytes(self, part: TablePart, column: str) -> list[int]:
        if not part.row_groups:
            return []
        with self._opened(part) as file:
            groups = map(file.metadata.row_group, range(file.num_row_groups))
            return [
                sum(
                    leaf.total_uncompressed_size
                    for leaf in map(group.column, range(group.num_columns))
                    if leaf.path_in_schema.split(".")[0] == column
                )
                for group in groups
            ]

    def read_group(self, group: RowGroup, columns: Sequence[str]) -> "pa.Table":
        """Return the rows of one row group.

        Raises:
            ManifestError: the part is missing or disagrees with the manifest.
            StoreError: the store cannot be read at present.
        """
        with self._opened(group.part) as file:
            return file.read_row_group(group.index, columns=list(columns))

    def read(
        self, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
    ) -> "pa.Table":
        """Return rows ``start`` to ``stop`` (exclusive); by default all rows and columns.

        Raises:
            ManifestError: the stage has no such table, or a part is missing or disagrees with the
                manifest.
        """
        import pyarrow as pa

        stop = self.num_rows if stop is None else min(stop, self.num_rows)
        tables: list[pa.Table] = []
        for i in range(bisect.bisect_right(self._ends, start), len(self.parts)):
            first = self._ends[i] - self.parts[i].num_rows
            if first >= stop and tables:
                break
            tables.append(self._read_part(self.parts[i], start - first, stop - first, columns))
        if not tables:
            if not self.parts:
                raise ManifestError(f"{self.folder.uri}: no table named {self.name!r}")
            tables.append(self._read_part(self.parts[-1], 0, 0, columns))
        return pa.concat_tables(tables)

    def fetch(self, name: str) -> Path:
        """Return a local copy of the committed file with that name.

        Raises:
            ManifestError: no file or several files have that name, or the size is wrong.
        """
        found = [f for f in self.manifest.files if PurePosixPath(f.path).name == name]
        if len(found) != 1:
            raise ManifestError(f"{self.folder.uri}: {len(found)} files named {name!r}; {REPAIR}")
        return self._fetch(found[0].path)

    def fetch_folder(self, name: str) -> Path:
        """Return a local copy of the folder that holds the committed file with that name."""
        folder = self.fetch(name).parent
        (path,) = (f.path for f in self.manifest.files if PurePosixPath(f.path).name == name)
        for file in self.manifest.files:
            if PurePosixPath(file.path).parent == PurePosixPath(path).parent:
                self._fetch(file.path)
        return folder

    def _fetch(self, path: str) -> Path:
        (expected,) = (f.bytes for f in self.manifest.files if f.path == path)
        size = self.folder.size(path)
        if size != expected:
            raise ManifestError(_size_differs(self.folder.uri_of(path), size, expected))
        return self.folder.fetch(path)

    @contextmanager
    def _opened(self, part: TablePart) -> "Iterator[pq.ParquetFile]":
        """Open a part for reading in the block, and compare it with the manifest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        where = self.folder.uri_of(part.path)
        size = self.folder.size(part.path)
        if size != part.bytes:
            raise ManifestError(_size_differs(where, size, part.bytes))
        footer = self._footers.get(part.path)
        try:
            with pq.ParquetFile(self.folder.open(part.path), metadata=footer) as file:
                if footer is None:
                    self._compare(file, part, where)
                    self._footers[part.path] = file.metadata
                    if len(self._footers) > _MAX_CACHED_FOOTERS:
                        self._footers.popitem(last=False)
                yield file
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self._judged(part, error) from error

    def _judged(self, part: TablePart, error: Exception) -> PipelineError:
        """Return what an error of a read means: a damaged file, or a store that fails at present.

        Arrow raises the same exceptions for both, so the digest decides.
        """
        where, words = self.folder.uri_of(part.path), " ".join(str(error).split())
        try:
            is_whole = file_of(self.folder, part.path).sha256 == part.sha256
        except StoreError as failure:
            return failure
        if is_whole:
            return StoreError(f"{where}: cannot be read at present: {words}")
        return ManifestError(f"{where}: not readable as Parquet ({words}); {REPAIR}")

    def _compare(self, file: "pq.ParquetFile", part: TablePart, where: str) -> None:
        found = columns_of(file.schema_arrow)
        expected = self.manifest.columns[self.name]
        if found != expected:
            differ = ", ".join(sorted(set(found) ^ set(expected))) or "their order"
            raise ManifestError(f"{where}: columns differ from its manifest: {differ}; {REPAIR}")
        if file.metadata.num_rows != part.num_rows:
            raise ManifestError(
                f"{where}: {file.metadata.num_rows} rows, its manifest says {part.num_rows}; "
                f"{REPAIR}"
            )

    def _read_part(
        self, part: TablePart, start: int, stop: int, columns: Sequence[str] | None
    ) -> "pa.Table":
        """Return rows ``start`` to ``stop`` of a part, reading only their row groups."""
        ends = list(itertools.accumulate(part.row_groups))
        start = max(start, 0)
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, stop)
        groups = list(range(first, min(last + 1, len(ends)))) if start < stop else []
        with self._opened(part) as file:
            table = file.read_row_groups(groups, columns=list(columns) if columns else None)
        skipped = ends[first - 1] if first else 0
        return table.slice(start - skipped, max(stop - start, 0)) if groups else table


def _size_differs(where: str, size: int | None, expected: int) -> str:
    if size is None:
        return f"{where}: missing; {REPAIR}"
    return f"{where}: {size} bytes, its manifest says {expected}; {REPAIR}"
