"""Datasets: the committed rows of a stage, read by row range.

A row has a number: its place in the table, part after part. Slices are ranges of these numbers.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.errors import ManifestError
from orchestration.manifest import Manifest, TablePart, read_manifest
from orchestration.store import Store


@dataclass(frozen=True)
class RowGroup:
    """One row group of a table: the unit in which training reads."""

    path: str
    "Absolute path of the Parquet file."
    index: int
    "Row group within the file."
    num_rows: int
    first_row: int
    "Number of its first row within the table."


@dataclass(frozen=True)
class Dataset:
    """A committed table of a stage. Picklable: workers open it again by its folder."""

    folder: Store
    manifest: Manifest
    table: str = "data"

    def __reduce__(self) -> tuple[object, ...]:
        # A manifest of many parts is read again by whoever needs it rather than sent along.
        return Dataset.open, (self.folder, self.table)

    @classmethod
    def open(cls, folder: Store, table: str = "data") -> "Dataset":
        """Open a stage's committed output.

        Raises:
            StoreError: the stage has not been committed.
            ManifestError: the manifest is damaged.
        """
        return cls(folder, read_manifest(folder), table)

    def of(self, table: str) -> "Dataset":
        """Return another table of the same stage."""
        return Dataset(self.folder, self.manifest, table)

    @cached_property
    def parts(self) -> list[TablePart]:
        """The Parquet files of this table, in slice order."""
        return [p.tables[self.table] for p in self.manifest.parts if self.table in p.tables]

    @cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(part.num_rows for part in self.parts))

    @property
    def num_rows(self) -> int:
        """Rows in the table."""
        return self._ends[-1] if self._ends else 0

    def row_groups(self) -> list[RowGroup]:
        """Return every row group in row order."""
        groups, first = [], 0
        for part in self.parts:
            for index, num_rows in enumerate(part.row_groups):
                groups.append(RowGroup(str(self.folder.path(part.path)), index, num_rows, first))
                first += num_rows
        return groups

    def read(
        self, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return rows ``start`` to ``stop`` (exclusive; default the end).

        Raises:
            ManifestError: a part is missing or has another size than its manifest says.
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
                raise ManifestError(f"{self.folder.root}: no table named {self.table!r}")
            tables.append(self._read_part(self.parts[-1], 0, 0, columns))
        return pa.concat_tables(tables)

    def file(self, name: str) -> Path:
        """Return the path of the only committed file of that name.

        Raises:
            ManifestError: there is none, or there are several.
        """
        found = [f.path for f in self.manifest.files if PurePosixPath(f.path).name == name]
        if len(found) != 1:
            raise ManifestError(
                f"{self.folder.root}: {len(found)} files named {name!r}; {_advice(self.folder)}"
            )
        return self.folder.path(found[0])

    def _read_part(
        self, part: TablePart, start: int, stop: int, columns: Sequence[str] | None
    ) -> pa.Table:
        """Rows ``start`` to ``stop`` of a part, out of the row groups that hold them."""
        path = self.folder.path(part.path)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise ManifestError(f"{path}: part is missing; {_advice(self.folder)}") from None
        if size != part.bytes:
            raise ManifestError(
                f"{path}: {size} bytes, its manifest says {part.bytes}; {_advice(self.folder)}"
            )
        file = pq.ParquetFile(path)
        if file.metadata.num_rows != part.num_rows:
            raise ManifestError(
                f"{path}: {file.metadata.num_rows} rows, its manifest says {part.num_rows}; "
                f"{_advice(self.folder)}"
            )
        ends = list(itertools.accumulate(part.row_groups))
        start = max(start, 0)
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, stop)
        groups = list(range(first, min(last + 1, len(ends)))) if start < stop else []
        table = file.read_row_groups(groups, columns=list(columns) if columns else None)
        skipped = ends[first - 1] if first else 0
        return table.slice(start - skipped, max(stop - start, 0)) if groups else table


def _advice(folder: Store) -> str:
    return f"remove {folder.root} to compute the stage again"
