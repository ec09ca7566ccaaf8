"""Committing slices: a worker processes a slice, writes its tables, and at last its part."""

import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.errors import PipelineError, StoreError
from orchestration.manifest import REJECTS, Part, TablePart, part_path, read_part
from orchestration.reporting.usage import peak_memory
from orchestration.slices import Output, Process, Slice
from orchestration.storage.store import Store

_READERS: Final = 16
_DIGITS: Final = 12
"Digits of the digest in the name of a file."


class Committer:
    """Processes and commits slices in a worker: one slice in a task, many in an actor."""

    def __init__(self, folder: Store, factory: Callable[[], Process], row_group_rows: int) -> None:
        self.folder = folder
        self.factory = factory
        self.row_group_rows = row_group_rows
        self.process: Process | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Return a receipt; it reports an error instead of raising, so that other slices go on."""
        slice_ = Slice(row["id"], json.loads(row["payload"]))
        receipt: dict[str, Any] = {"slice": slice_.id, "error": None}
        try:
            # A slice of a lost worker is repeated; what it has committed is kept.
            part = read_part(self.folder, slice_.id)
            if part is None:
                self.process = self.process or self.factory()
                part = commit_slice(self.folder, slice_, self.process(slice_), self.row_group_rows)
            receipt["part"] = part.model_dump(mode="json")
        except Exception as error:
            receipt["error"] = traceback.format_exc()
            # Another attempt cannot fix an error that was raised with a message for the user.
            receipt["fatal"] = isinstance(error, PipelineError) and not isinstance(
                error, StoreError
            )
        receipt["memory"] = peak_memory()
        return {"receipt": json.dumps(receipt)}


def commit_slice(folder: Store, slice_: Slice, output: Output, row_group_rows: int) -> Part:
    """Write a slice's tables, then its part; a crash in between leaves an uncommitted slice.

    A worker that was taken for lost may still commit a slice that another one repeats. A download
    then has other rows. So the name of a file contains the digest of its content, and neither
    worker overwrites what the other's part refers to; the part that was written first counts.
    """
    tables = {
        name: _write_table(folder, f"{name}/{slice_.id}", table, row_group_rows)
        for name, table in output.tables.items()
    }
    if (first := read_part(folder, slice_.id)) is not None:
        return first
    rejects = output.tables.get(REJECTS)
    part = Part(
        slice=slice_.id,
        num_rows_in=output.num_rows_in,
        tables=tables,
        rejects=dict(Counter(rejects["reason"].to_pylist())) if rejects is not None else {},
        counters=dict(output.counters),
    )
    folder.write_bytes(part_path(slice_.id), part.to_bytes())
    return part


def _write_table(folder: Store, name: str, table: pa.Table, row_group_rows: int) -> TablePart:
    file = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), file, row_group_size=row_group_rows, compression="zstd")
    data = file.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{name}-{sha256[:_DIGITS]}.parquet"
    folder.write_bytes(path, data)
    num_whole, rest = divmod(table.num_rows, row_group_rows)
    groups = (row_group_rows,) * num_whole + ((rest,) if rest else ())
    return TablePart(
        path=path, bytes=data.size, sha256=sha256, num_rows=table.num_rows, row_groups=groups
    )


def read_tables(
    folder: Store, paths: Sequence[str], columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows of several files of one table, in their order; all columns by default."""

    def read(path: str) -> pa.Table:
        return pq.read_table(folder.open(path), columns=list(columns) if columns else None)

    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(pool.map(read, paths))
