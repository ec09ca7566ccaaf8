"""Datasets: the committed rows of a stage, read by row range.

A row has a number: its place in the table, part after part. Slices are ranges of these numbers.
Each part is checked when it is opened: it is there, and its size, rows and columns are those that
the manifest says. Its digest is checked where that is asked for, as it costs a whole read.
"""

import bisect
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.errors import ManifestError
from orchestration.manifest import Manifest, TablePart, columns_of, read_manifest
from orchestration.storage.store import Store

_FOOTERS_KEPT = 1024


@dataclass(frozen=True)
class RowGroup:
    """One row group of a table: the unit in which training reads."""

    part: TablePart
    index: int
    "Row group within the part."
    num_rows: int
    first_row: int
    "Number of its first row within the table."


@dataclass(frozen=True)
class Dataset:
    """A committed table of a stage. Picklable: workers open it again by its folder."""

    folder: Store
    manifest: Manifest
    name: str = "data"
    "Of the table."

    def __reduce__(self) -> tuple[object, ...]:
        # A manifest of many parts is read again by whoever needs it rather than sent along.
        return Dataset.open, (self.folder, self.name)

    @classmethod
    def open(cls, folder: Store, table: str = "data") -> "Dataset":
        """Open a stage's committed output.

        Raises:
            StoreError: the stage has not been committed.
            ManifestError: the manifest is damaged.
        """
        return cls(folder, read_manifest(folder), table)

    def table(self, name: str) -> "Dataset":
        """Return another table of the same stage."""
        return Dataset(self.folder, self.manifest, name)

    @cached_property
    def parts(self) -> list[TablePart]:
        """The Parquet files of this table, in slice order."""
        return [p.tables[self.name] for p in self.manifest.parts if self.name in p.tables]

    @cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(part.num_rows for part in self.parts))

    @cached_property
    def _footers(self) -> OrderedDict[str, pq.FileMetaData]:
        return OrderedDict()

    @property
    def num_rows(self) -> int:
        """Rows in the table."""
        return self._ends[-1] if self._ends else 0

    def row_groups(self) -> list[RowGroup]:
        """Return every row group in row order."""
        groups, first = [], 0
        for part in self.parts:
            for index, num_rows in enumerate(part.row_groups):
                groups.append(RowGroup(part, index, num_rows, first))
                first += num_rows
        return groups

    def read_group(self, group: RowGroup, columns: Sequence[str]) -> pa.Table:
        """Return one row group.

        Raises:
            ManifestError: its part is not what the manifest says.
        """
        with self._opened(group.part) as file:
            return file.read_row_group(group.index, columns=list(columns))

    def read(
        self, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return rows ``start`` to ``stop`` (exclusive; default the end).

        Raises:
            ManifestError: a part is not what the manifest says.
        """
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
        """Return a local copy of the only committed file of that name.

        Raises:
            ManifestError: there is none, or there are several, or it has another size.
        """
        found = [f for f in self.manifest.files if PurePosixPath(f.path).name == name]
        if len(found) != 1:
            raise ManifestError(f"{self.folder.uri}: {len(found)} files named {name!r}; {_REPAIR}")
        return self._fetch(found[0].path)

    def fetch_folder(self, name: str) -> Path:
        """Return a local copy of the folder that holds the only committed file of that name."""
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

    def _opened(self, part: TablePart) -> pq.ParquetFile:
        """Open a part and compare it with its manifest."""
        where = self.folder.uri_of(part.path)
        size = self.folder.size(part.path)
        if size != part.bytes:
            raise ManifestError(_size_differs(where, size, part.bytes))
        footer = self._footers.get(part.path)
        try:
            file = pq.ParquetFile(self.folder.open(part.path), metadata=footer)
        except (pa.ArrowInvalid, OSError) as error:
            raise ManifestError(f"{where}: not readable as Parquet ({error}); {_REPAIR}") from None
        if footer is None:
            self._compare(file, part, where)
            self._footers[part.path] = file.metadata
            if len(self._footers) > _FOOTERS_KEPT:
                self._footers.popitem(last=False)
        return file

    def _compare(self, file: pq.ParquetFile, part: TablePart, where: str) -> None:
        found = columns_of(file.schema_arrow)
        expected = self.manifest.columns[self.name]
        if found != expected:
            differ = ", ".join(sorted(set(found) ^ set(expected))) or "their order"
            raise ManifestError(f"{where}: columns differ from its manifest: {differ}; {_REPAIR}")
        if file.metadata.num_rows != part.num_rows:
            raise ManifestError(
                f"{where}: {file.metadata.num_rows} rows, its manifest says {part.num_rows}; "
                f"{_REPAIR}"
            )

    def _read_part(
        self, part: TablePart, start: int, stop: int, columns: Sequence[str] | None
    ) -> pa.Table:
        """Rows ``start`` to ``stop`` of a part, out of the row groups that hold them."""
        ends = list(itertools.accumulate(part.row_groups))
        start = max(start, 0)
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, stop)
        groups = list(range(first, min(last + 1, len(ends)))) if start < stop else []
        with self._opened(part) as file:
            table = file.read_row_groups(groups, columns=list(columns) if columns else None)
        skipped = ends[first - 1] if first else 0
        return table.slice(start - skipped, max(stop - start, 0)) if groups else table


_REPAIR = "`beit3 run … --repair` computes it again"


def _size_differs(where: str, size: int | None, expected: int) -> str:
    if size is None:
        return f"{where}: missing; {_REPAIR}"
    return f"{where}: {size} bytes, its manifest says {expected}; {_REPAIR}"
