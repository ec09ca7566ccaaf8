"""Running slices on Ray Data: one row of the Ray dataset is one slice, never a row of data.

Ray schedules, retries lost workers and holds actor pools; each worker writes and commits its own
slice and sends back a receipt of a few numbers. What a slice holds never passes through Ray.
"""

import json
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from orchestration.errors import StageError
from orchestration.manifest import PARTS, REJECTS, Part, TablePart, read_parts
from orchestration.progress import StageProgress
from orchestration.stage import Output, Process, Slice
from orchestration.store import Store

_MAX_ERRORS_SHOWN = 3


def run_slices(
    folder: Store,
    slices: Sequence[Slice],
    factory: Callable[[], Process],
    progress: StageProgress,
    *,
    row_group_rows: int,
    num_cpus: float,
    num_actors: int,
) -> None:
    """Process and commit each slice that has no part yet.

    Raises:
        StageError: slices failed; the others are committed.
    """
    done = read_parts(folder)
    missing = [piece for piece in slices if piece.id not in done]
    kept = [done[piece.id] for piece in slices if piece.id in done]
    counts = [piece.num_rows for piece in slices if piece.num_rows is not None]
    num_rows = sum(counts) if len(counts) == len(slices) else None
    progress.start(len(slices), num_rows, resumed=len(kept))
    for part in kept:
        progress.advance(part.num_rows_in, Counter(part.rejects))
    if not missing:
        return
    rows = [{"id": piece.id, "payload": json.dumps(piece.payload)} for piece in missing]
    committing = (folder, factory, row_group_rows)
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if num_actors:
        receipts = dataset.map(
            Committer,
            fn_constructor_args=committing,
            num_cpus=num_cpus,
            compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(rows))),
        )
    else:
        receipts = dataset.map(Committer(*committing), num_cpus=num_cpus)

    errors: list[str] = []
    for batch in receipts.iter_batches(batch_size=None, prefetch_batches=0):
        for receipt in map(json.loads, batch["receipt"]):
            if receipt["error"]:
                errors.append(f"slice {receipt['slice']}: {receipt['error']}")
                progress.fail()
            else:
                progress.advance(receipt["num_rows_in"], Counter(receipt["rejects"]))
    if errors:
        shown = "\n".join(errors[:_MAX_ERRORS_SHOWN])
        raise StageError(
            f"{len(errors)} of {len(slices)} slices failed, the others are kept in {folder.root}; "
            f"run again to repeat the failed ones.\n{shown}"
        )


class Committer:
    """Processes slices and commits their parts in a worker: one for a task, many for an actor."""

    def __init__(self, folder: Store, factory: Callable[[], Process], row_group_rows: int) -> None:
        self.folder = folder
        self.factory = factory
        self.row_group_rows = row_group_rows
        self.process: Process | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Return a receipt; an error is reported in it, so that other slices go on."""
        piece = Slice(row["id"], json.loads(row["payload"]))
        try:
            self.process = self.process or self.factory()
            part = commit_slice(self.folder, piece, self.process(piece), self.row_group_rows)
            receipt = {
                "slice": piece.id,
                "error": None,
                "num_rows_in": part.num_rows_in,
                "rejects": part.rejects,
            }
        except Exception:
            receipt = {"slice": piece.id, "error": traceback.format_exc()}
        return {"receipt": json.dumps(receipt)}


def commit_slice(folder: Store, piece: Slice, output: Output, row_group_rows: int) -> Part:
    """Write a slice's tables, then its part: the order is what makes a crash harmless."""
    tables = {
        name: _write_table(folder, f"{name}/{piece.id}.parquet", table, row_group_rows)
        for name, table in output.tables.items()
    }
    rejects = output.tables.get(REJECTS)
    part = Part(
        slice=piece.id,
        num_rows_in=output.num_rows_in,
        tables=tables,
        rejects=dict(Counter(rejects["reason"].to_pylist())) if rejects is not None else {},
        counters=dict(output.counters),
    )
    folder.write_bytes(f"{PARTS}/{piece.id}.json", part.to_bytes())
    return part


def _write_table(folder: Store, path: str, table: pa.Table, row_group_rows: int) -> TablePart:
    with folder.write(path) as file:
        pq.write_table(
            table.combine_chunks(), file, row_group_size=row_group_rows, compression="zstd"
        )
    size, sha256 = folder.size_and_sha256(path)
    metadata = pq.read_metadata(folder.path(path))
    groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    return TablePart(
        path=path, bytes=size, sha256=sha256, num_rows=table.num_rows, row_groups=groups
    )
