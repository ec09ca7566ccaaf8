"""Committing slices: a worker processes a slice, writes its tables, and at last its part."""

import contextlib
import hashlib
import json
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.errors import PipelineError, StoreError
from orchestration.manifest import REJECTS, Part, TablePart, part_path, read_part
from orchestration.reporting.usage import peak_memory
from orchestration.slices import Output, Process, Slice, outputs_of
from orchestration.storage.store import Store

_READERS: Final = 16
_IN_MEMORY_BYTES: Final = 1 << 26
"Beyond this size, a file is built in the temporary folder."
_BLOCK_BYTES: Final = 1 << 20
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


def commit_slice(
    folder: Store, slice_: Slice, output: Output | Iterator[Output], row_group_rows: int
) -> Part:
    """Write a slice's tables, then its part; a crash in between leaves an uncommitted slice.

    Files are built in memory, or beyond a size in the temporary folder, and then copied.

    A worker that was taken for lost may still commit a slice that another one repeats. A download
    then has other rows. So the name of a file contains the digest of its content, and neither
    worker overwrites what the other's part refers to; the part that was written first counts.
    """
    files: dict[str, _TableFile] = {}
    num_rows_in, rejects, counters = 0, Counter[str](), Counter[str]()
    with contextlib.ExitStack() as stack:
        for piece in outputs_of(output):
            for name, table in piece.tables.items():
                if name not in files:
                    files[name] = stack.enter_context(_TableFile(table.schema, row_group_rows))
                files[name].write(table)
            num_rows_in += piece.num_rows_in
            counters.update(piece.counters)
            if REJECTS in piece.tables:
                rejects.update(piece.tables[REJECTS]["reason"].to_pylist())
        tables = {name: file.copy_to(folder, f"{name}/{slice_.id}") for name, file in files.items()}
    if (first := read_part(folder, slice_.id)) is not None:
        return first
    part = Part(
        slice=slice_.id,
        num_rows_in=num_rows_in,
        tables=tables,
        rejects=dict(rejects),
        counters=dict(counters),
    )
    folder.write_bytes(part_path(slice_.id), part.to_bytes())
    return part


class _TableFile:
    """A Parquet file that is written piece by piece, before its name is known."""

    def __init__(self, schema: pa.Schema, row_group_rows: int) -> None:
        self.schema = schema
        self.row_group_rows = row_group_rows
        self.row_groups: list[int] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")

    def __enter__(self) -> "_TableFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._file.close()

    def write(self, table: pa.Table) -> None:
        """Append rows, as row groups of their own."""
        if table.num_rows:
            self._writer.write_table(table.combine_chunks(), row_group_size=self.row_group_rows)
            num_whole, rest = divmod(table.num_rows, self.row_group_rows)
            self.row_groups += [self.row_group_rows] * num_whole + ([rest] if rest else [])

    def copy_to(self, folder: Store, name: str) -> TablePart:
        """End the file and copy it to the store; its name is followed by digits of its digest."""
        if not self.row_groups:
            self._writer.write_table(self.schema.empty_table())
        self._writer.close()
        num_bytes = self._file.tell()
        self._file.seek(0)
        digest = hashlib.sha256()
        while block := self._file.read(_BLOCK_BYTES):
            digest.update(block)
        sha256 = digest.hexdigest()
        path = f"{name}-{sha256[:_DIGITS]}.parquet"
        self._file.seek(0)
        with folder.write(path) as out:
            shutil.copyfileobj(self._file, out, _BLOCK_BYTES)
        return TablePart(
            path=path,
            bytes=num_bytes,
            sha256=sha256,
            num_rows=sum(self.row_groups),
            row_groups=tuple(self.row_groups),
        )


def read_tables(
    folder: Store, paths: Sequence[str], columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows of several files of one table, in their order; all columns by default."""

    def read(path: str) -> pa.Table:
        return pq.read_table(folder.open(path), columns=list(columns) if columns else None)

    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(pool.map(read, paths))
