"""Running slices on Ray Data: one row of the Ray dataset is one slice, never a row of data.

Ray schedules the slices, replaces lost workers and manages actor pools. Each worker writes and
commits its own slice and returns a receipt with the committed part; the rows of a slice never pass
through Ray. A slice that fails is retried after the others, with exponential backoff.
"""

import json
import random
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.exceptions import RayError

from orchestration.errors import PipelineError, StageError, StoreError
from orchestration.manifest import REJECTS, Part, TablePart, part_path, read_part, read_parts
from orchestration.recipe import SliceParams
from orchestration.reporting.progress import StageProgress
from orchestration.reporting.usage import peak_memory
from orchestration.slices import Output, Process, Slice
from orchestration.storage.store import Store

_MAX_ERRORS_SHOWN: Final = 3
_MAX_BLOCKS: Final = 4096
"A Ray block costs milliseconds; beyond this number, several slices share one."


@dataclass
class _Failure:
    piece: Slice
    error: str
    fatal: bool
    attempts: int


def run_slices(
    folder: Store,
    slices: Sequence[Slice],
    factory: Callable[[], Process],
    progress: StageProgress,
    *,
    row_group_rows: int,
    num_cpus: float,
    num_gpus: float,
    num_actors: int,
    retries: SliceParams,
    stopping: threading.Event,
) -> tuple[dict[str, Part], int]:
    """Process and commit each slice that has no committed part yet.

    Returns the parts of all slices by slice id, and the largest peak memory of a worker in bytes.

    Args:
        folder: folder of the stage.
        slices: slices of the stage.
        factory: makes the process of a worker.
        progress: display of the stage.
        row_group_rows: rows per row group of the Parquet files.
        num_cpus: CPU cores per worker.
        num_gpus: GPUs per worker.
        num_actors: number of actors; 0 runs tasks.
        retries: number of attempts and pauses between them.
        stopping: set to stop before the next attempt.

    Raises:
        StageError: slices failed in every attempt, or ``stopping`` is set; committed parts are
            kept.
    """
    committed = read_parts(folder)
    done = {piece.id: committed[piece.id] for piece in slices if piece.id in committed}
    counts = [piece.num_rows for piece in slices if piece.num_rows is not None]
    num_rows = sum(counts) if len(counts) == len(slices) else None
    progress.start(len(slices), num_rows, resumed=len(done))
    for part in done.values():
        progress.advance(part.num_rows_in, Counter(part.rejects))
    failures: dict[str, _Failure] = {}
    memory = 0
    for attempt in range(1, retries.max_attempts + 1):
        missing = [
            piece
            for piece in slices
            if piece.id not in done and not (piece.id in failures and failures[piece.id].fatal)
        ]
        if not missing:
            break
        if attempt > 1:
            pause = min(retries.pause_s * 2 ** (attempt - 2), retries.max_pause_s)
            stopping.wait(pause * (0.5 + random.random() / 2))
        if stopping.is_set():
            raise StageError(f"stopped; committed slices are kept in {folder.uri}")
        receipts = _receipts(
            folder, missing, factory, row_group_rows, num_cpus, num_gpus, num_actors
        )
        for piece, outcome, held in receipts:
            memory = max(memory, held)
            if isinstance(outcome, Part):
                done[piece.id] = outcome
                failures.pop(piece.id, None)
                progress.advance(outcome.num_rows_in, Counter(outcome.rejects))
            else:
                failures[piece.id] = outcome
                outcome.attempts = attempt
        if not stopping.is_set():
            progress.failed(len(failures))
    if stopping.is_set() and len(done) < len(slices):
        raise StageError(f"stopped; committed slices are kept in {folder.uri}")
    if failures:
        raise StageError(_words(failures, len(slices), folder))
    return done, memory


def _receipts(
    folder: Store,
    missing: Sequence[Slice],
    factory: Callable[[], Process],
    row_group_rows: int,
    num_cpus: float,
    num_gpus: float,
    num_actors: int,
) -> Iterator[tuple[Slice, Part | _Failure, int]]:
    """Run slices once; yield (slice, part or failure, worker's peak memory) as they end."""
    by_id = {piece.id: piece for piece in missing}
    rows = [{"id": piece.id, "payload": json.dumps(piece.payload)} for piece in missing]
    committing = (folder, factory, row_group_rows)
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
    resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    if num_actors:
        receipts = dataset.map(
            Committer,
            fn_constructor_args=committing,
            compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(rows))),
            **resources,
        )
    else:
        receipts = dataset.map(Committer(*committing), **resources)
    left = dict(by_id)
    try:
        for batch in receipts.iter_batches(batch_size=None, prefetch_batches=0):
            for receipt in map(json.loads, batch["receipt"]):
                piece = left.pop(receipt["slice"])
                if receipt["error"]:
                    failure = _Failure(piece, receipt["error"], receipt["fatal"], 0)
                    yield piece, failure, receipt["memory"]
                else:
                    yield piece, Part.model_validate(receipt["part"]), receipt["memory"]
    except RayError as error:
        # Workers died more often than Ray retries; the parts that they committed are valid.
        committed = read_parts(folder)
        for piece in left.values():
            if piece.id in committed:
                yield piece, committed[piece.id], 0
            else:
                yield piece, _Failure(piece, f"{type(error).__name__}: {error}", False, 0), 0


def _words(failures: dict[str, _Failure], num_slices: int, folder: Store) -> str:
    lines = [
        f"{len(failures)} of {num_slices} slices failed, the others are kept in {folder.uri}; "
        "run again to repeat the failed ones."
    ]
    for failure in list(failures.values())[:_MAX_ERRORS_SHOWN]:
        payload = json.dumps(failure.piece.payload)
        lines.append(
            f"slice {failure.piece.id} ({payload}), {failure.attempts} attempts: {failure.error}"
        )
    return "\n".join(lines)


class Committer:
    """Processes and commits slices in a worker: one slice in a task, many in an actor."""

    def __init__(self, folder: Store, factory: Callable[[], Process], row_group_rows: int) -> None:
        self.folder = folder
        self.factory = factory
        self.row_group_rows = row_group_rows
        self.process: Process | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Return a receipt; it reports an error instead of raising, so that other slices go on."""
        piece = Slice(row["id"], json.loads(row["payload"]))
        receipt: dict[str, Any] = {"slice": piece.id, "error": None}
        try:
            # Ray repeats the complete task of a lost worker, whose committed parts are kept.
            part = read_part(self.folder, piece.id)
            if part is None:
                self.process = self.process or self.factory()
                part = commit_slice(self.folder, piece, self.process(piece), self.row_group_rows)
            receipt["part"] = part.model_dump(mode="json")
        except Exception as error:
            receipt["error"] = traceback.format_exc()
            # Another attempt cannot fix an error that was raised with a message for the user.
            receipt["fatal"] = isinstance(error, PipelineError) and not isinstance(
                error, StoreError
            )
        receipt["memory"] = peak_memory()
        return {"receipt": json.dumps(receipt)}


def commit_slice(folder: Store, piece: Slice, output: Output, row_group_rows: int) -> Part:
    """Write a slice's tables, then its part; a crash in between leaves an uncommitted slice."""
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
    folder.write_bytes(part_path(piece.id), part.to_bytes())
    return part


def _write_table(folder: Store, path: str, table: pa.Table, row_group_rows: int) -> TablePart:
    with folder.write(path) as file:
        pq.write_table(
            table.combine_chunks(), file, row_group_size=row_group_rows, compression="zstd"
        )
    num_whole, rest = divmod(table.num_rows, row_group_rows)
    groups = (row_group_rows,) * num_whole + ((rest,) if rest else ())
    return TablePart(
        path=path,
        bytes=file.bytes,
        sha256=file.sha256,
        num_rows=table.num_rows,
        row_groups=groups,
    )
