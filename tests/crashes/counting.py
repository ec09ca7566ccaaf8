"""A synthetic workflow of three stages, run as a process that can be killed anywhere.

    python -m tests.crashes.counting WORKDIR ENDPOINT TRACES RUN [POINT]

``numbers`` makes rows; ``squares`` and ``sums`` read them slice by slice. Each slice that is
started adds a line to TRACES, outside the store. POINT, as in ``parts/:half``, names a write of the
commit protocol: the process that performs it kills itself, once.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow
from orchestration.params import StageParams
from orchestration.recipe import SliceParams
from orchestration.slices import read_slice, row_slices
from orchestration.storage.files import StorageParams
from orchestration.storage.local_files import LocalFiles
from orchestration.storage.s3_files import ObjectFiles
from orchestration.storage.store import Store

NUM_SLICES = 10
ROWS = 20
SLICE_SECONDS = 0.04


class Params(StageParams):
    """No parameters."""


def trace(traces: Path, run: str, stage: str, slice_: Slice) -> None:
    """Record that a slice was started, and by which process."""
    line = json.dumps({"run": run, "stage": stage, "slice": slice_.id, "pid": os.getpid()})
    with (traces / "slices").open("a") as file:
        file.write(line + "\n")
    time.sleep(SLICE_SECONDS)


def count(note: Callable[[str, Slice], None], slice_: Slice) -> Output:
    note("numbers", slice_)
    start = slice_.payload["start"]
    table = pa.table({"n": np.arange(start, start + ROWS)})
    odd = pa.table({"n": [start], "reason": ["first"]})
    return Output(ROWS, {"data": table, "rejects": odd}, {"seen": ROWS})


def numbers(context: Context, note: Callable[[str, Slice], None]) -> None:
    slices = [Slice(f"{i:04d}", {"start": i * ROWS}) for i in range(NUM_SLICES)]
    context.map_slices(slices, partial(count, note))
    context.commit(slices)


def square(note: Callable[[str, Slice], None], source: Dataset, slice_: Slice) -> Output:
    note("squares", slice_)
    rows = read_slice(source, slice_)["n"].to_numpy()
    return Output(len(rows), {"data": pa.table({"n": rows**2})})


def squares(context: Context, note: Callable[[str, Slice], None]) -> None:
    source = context.input("numbers")
    slices = row_slices(source, 27)  # not aligned with the parts of the input
    context.map_slices(slices, partial(square, note, source))
    context.commit(slices)


class Summing:
    """Sums the rows of a slice in an actor."""

    def __init__(self, note: Callable[[str, Slice], None], source: Dataset) -> None:
        self.note, self.source = note, source

    def __call__(self, slice_: Slice) -> Output:
        self.note("sums", slice_)
        rows = read_slice(self.source, slice_)["n"].to_numpy()
        return Output(len(rows), {"data": pa.table({"sum": [int(rows.sum())]})})


def sums(context: Context, note: Callable[[str, Slice], None]) -> None:
    source = context.input("squares")
    slices = row_slices(source, 31)
    context.map_slices_with_actors(slices, partial(Summing, note, source), num_actors=2)
    total = sum(context.read_parts(slices)["sum"].to_pylist())
    context.folder.write_bytes("total.json", json.dumps(total).encode())
    context.commit(slices, files=["total.json"], numbers={"total": total})


class Note:
    """Records a slice and arms the crash in the process that works on it."""

    def __init__(self, traces: Path, run: str, point: str | None) -> None:
        self.traces, self.run, self.point = traces, run, point

    def __call__(self, stage: str, slice_: Slice) -> None:
        arm(self.traces, self.point)
        trace(self.traces, self.run, stage, slice_)


def workflow(traces: Path, run: str, point: str | None) -> Workflow:
    note = Note(traces, run, point)
    recipe = Recipe(
        name="counting",
        slices=SliceParams(pause_s=0.1),
    )
    return Workflow(
        recipe,
        (
            Stage("numbers", lambda c: numbers(c, note), Params()),
            Stage("squares", lambda c: squares(c, note), Params(), {"numbers": ("numbers",)}),
            Stage("sums", lambda c: sums(c, note), Params(), {"squares": ("squares",)}),
        ),
    )


def arm(traces: Path, point: str | None) -> None:
    """Make the writes of this process kill it at ``point``: ``<part of a path>:<phase>``."""
    if point is None or getattr(LocalFiles.writing, "armed", False):
        return
    part, phase = point.split(":")
    for kind in (LocalFiles, ObjectFiles):
        kind.writing = _crashing(kind.writing, traces / "crashed", part, phase)  # type: ignore


def _crashing(writing: Any, once: Path, part: str, phase: str) -> Any:
    def crash() -> None:
        try:
            once.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def crashing(self: Any, path: str) -> Iterator[Any]:
        here = part in path
        if here and phase == "before":
            crash()
        with writing(self, path) as file:
            yield file
            if here and phase == "half":
                file.flush()
                crash()
        if here and phase == "after":
            crash()

    crashing.armed = True  # type: ignore[attr-defined]
    return crashing


def main() -> None:
    """Run the workflow once."""
    workdir, endpoint, traces, run = sys.argv[1:5]
    point = sys.argv[5] if len(sys.argv) > 5 else None
    arm(Path(traces), point)
    store = Store(workdir, StorageParams(endpoint_url=endpoint or None, max_attempts=3))
    workflow(Path(traces), run, point).run(store, Console(file=sys.stdout))


if __name__ == "__main__":
    main()
