"""Running slices on Ray Data: one row of the Ray dataset is one slice, never a row of data.

Ray schedules the slices, replaces lost workers and manages actor pools. Each worker writes and
commits its own slice and returns a receipt with the committed part; the rows of a slice never pass
through Ray. A slice that fails is retried after the others, with exponential backoff. A slice whose
worker ended each time runs alone at last; see :mod:`orchestration.suspects`.
"""

import gc
import json
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import ray.data
from ray.exceptions import RayError

from orchestration.errors import StageError
from orchestration.manifest import Part, read_parts
from orchestration.recipe import SliceParams
from orchestration.reporting.progress import StageProgress
from orchestration.resources import Resources
from orchestration.slice_commit import Committer
from orchestration.slices import Process, Quarantine, Slice
from orchestration.storage.store import Store
from orchestration.suspects import (
    Around,
    WorkerLostError,
    has_rows,
    killing_rows,
    run_alone,
)

logger = logging.getLogger(__name__)

_MAX_ERRORS_SHOWN: Final = 3
_MAX_BLOCKS: Final = 4096
"A Ray block costs milliseconds; beyond this number, several slices share one."


@dataclass
class _Failure:
    slice_: Slice
    error: str
    fatal: bool
    attempts: int
    is_lost: bool = False
    "The worker ended without an exception."


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
    quarantine: Quarantine | None = None,
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
        quarantine: makes rejects of rows that end their worker; None fails the stage instead.

    Raises:
        StageError: slices failed in every attempt, or ``stopping`` is set; committed parts are
            kept.
    """
    committed = read_parts(folder)
    done = {slice_.id: committed[slice_.id] for slice_ in slices if slice_.id in committed}
    counts = [slice_.num_rows for slice_ in slices if slice_.num_rows is not None]
    num_rows = sum(counts) if len(counts) == len(slices) else None
    progress.start(len(slices), num_rows, resumed=len(done))
    for part in done.values():
        progress.advance(part.num_rows_in, Counter(part.rejects))
    failures: dict[str, _Failure] = {}
    memory = 0
    for attempt in range(1, retries.max_attempts + 1):
        missing = [
            slice_
            for slice_ in slices
            if slice_.id not in done and not (slice_.id in failures and failures[slice_.id].fatal)
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
        for slice_, outcome, held in receipts:
            memory = max(memory, held)
            if isinstance(outcome, Part):
                done[slice_.id] = outcome
                failures.pop(slice_.id, None)
                progress.advance(outcome.num_rows_in, Counter(outcome.rejects))
            else:
                failures[slice_.id] = outcome
                outcome.attempts = attempt
        # Cycles keep handles of ended actors, which Ray restarts, and which then hold their CPUs.
        gc.collect()
        if not stopping.is_set():
            progress.failed(len(failures))
    resources = Resources(num_cpus, num_gpus)
    for failure in [f for f in failures.values() if f.is_lost and not stopping.is_set()]:
        logger.warning("slice %s lost its worker each time and runs alone", failure.slice_.id)
        made = _suspect(folder, failure, factory, row_group_rows, resources, quarantine, progress)
        if made is not None:
            done[made.slice] = made
            del failures[made.slice]
            progress.advance(made.num_rows_in, Counter(made.rejects))
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
    by_id = {slice_.id: slice_ for slice_ in missing}
    rows = [{"id": slice_.id, "payload": json.dumps(slice_.payload)} for slice_ in missing]
    committing = (folder, factory, row_group_rows)
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
    # Ray would repeat a slice that ends its worker without end. Here it is lost, the others go on.
    dataset.context.max_errored_blocks = -1
    options: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    if num_actors:
        receipts = dataset.map(
            Committer,
            fn_constructor_args=committing,
            compute=ray.data.ActorPoolStrategy(
                size=min(num_actors, len(rows)), max_tasks_in_flight_per_actor=1
            ),
            max_restarts=-1,
            max_task_retries=0,
            **options,
        )
    else:
        receipts = dataset.map(Committer(*committing), max_retries=0, **options)
    left = dict(by_id)
    lost = "its worker was lost"
    try:
        for batch in receipts.iter_batches(batch_size=None, prefetch_batches=0):
            for receipt in map(json.loads, batch["receipt"]):
                yield _outcome(left.pop(receipt["slice"]), receipt)
    except RayError as error:  # no worker could be started
        lost = f"{type(error).__name__}: {error}"
    committed = read_parts(folder) if left else {}  # a worker may have ended after its commit
    for slice_ in left.values():
        if slice_.id in committed:
            yield slice_, committed[slice_.id], 0
        else:
            yield slice_, _Failure(slice_, lost, False, 0, is_lost=True), 0


def _outcome(slice_: Slice, receipt: dict[str, Any]) -> tuple[Slice, Part | _Failure, int]:
    if receipt["error"]:
        failure = _Failure(slice_, receipt["error"], receipt["fatal"], 0)
        return slice_, failure, receipt["memory"]
    return slice_, Part.model_validate(receipt["part"]), receipt["memory"]


def _suspect(
    folder: Store,
    failure: _Failure,
    factory: Callable[[], Process],
    row_group_rows: int,
    resources: Resources,
    quarantine: Quarantine | None,
    progress: StageProgress,
) -> Part | None:
    """Process a slice alone, at last without the rows that end its worker.

    Returns its part; or None, and then ``failure`` says why.
    """
    slice_ = failure.slice_
    row = {"id": slice_.id, "payload": json.dumps(slice_.payload)}

    def commit(make: Callable[[], Process]) -> Part | None:
        failure.attempts += 1
        committer = Committer(folder, make, row_group_rows)
        receipt = json.loads(run_alone(partial(committer, row), resources)["receipt"])
        outcome = _outcome(slice_, receipt)[1]
        if isinstance(outcome, Part):
            return outcome
        failure.error, failure.is_lost = outcome.error, False
        return None

    try:
        return commit(factory)
    except WorkerLostError as error:
        failure.error = f"{error}, also when the slice ran alone"
        ended = str(error)
    if quarantine is None or not has_rows(slice_):
        return None
    rows = killing_rows(slice_, factory, resources)
    if rows is None:
        failure.error += "; no single row is the cause"
        return None
    numbers = ", ".join(map(str, rows))
    words = f"slice {slice_.id}: the worker of these rows ended, they are rejects: {numbers}"
    logger.error(words)
    progress.console.print(f"{progress.name}: {words}", highlight=False, soft_wrap=True)
    try:
        return commit(Around(factory, quarantine, rows, ended))
    except WorkerLostError as error:
        failure.error = f"{error}, also without the rows {rows}"
        return None


def _words(failures: dict[str, _Failure], num_slices: int, folder: Store) -> str:
    lines = [
        f"{len(failures)} of {num_slices} slices failed, the others are kept in {folder.uri}; "
        "run again to repeat the failed ones."
    ]
    for failure in list(failures.values())[:_MAX_ERRORS_SHOWN]:
        payload = json.dumps(failure.slice_.payload)
        lines.append(
            f"slice {failure.slice_.id} ({payload}), {failure.attempts} attempts: {failure.error}"
        )
    return "\n".join(lines)
