"""What the engine costs per slice, beside the bare files it writes.

    python benchmarks/engine.py [--slices 10000]

Ten thousand slices of one row each: commit, resume (reading every part), manifest, plan, status;
milliseconds a slice, memory at a tenth of the slices and at all of them. Beside each commit the
same bytes are written and flushed with plain ``open``: the ratio is the engine's own share. Then
the same stage through Ray, end to end.
"""

import argparse
import io
import os
import resource
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from orchestration import Context, Output, Recipe, Slice, Stage, Workflow
from orchestration.fingerprint import canonical_json, fingerprint_of
from orchestration.manifest import read_parts
from orchestration.params import StageParams
from orchestration.plan import IDENTITY, latest_record, make_plan
from orchestration.recipe import ClusterParams
from orchestration.reporting.progress import Shown, StageProgress
from orchestration.reporting.summary import status_table
from orchestration.reporting.tracking import RunLog
from orchestration.slice_runner import commit_slice
from orchestration.storage.store import Store


class Params(StageParams):
    """Nothing to choose."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=10_000)
    number = parser.parse_args().slices
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for count in (number // 10, number):
            measure(Store(f"{folder}/{count}"), count)
        whole(Store(f"{folder}/ray"), number)


def one_row(piece: Slice) -> Output:
    """Process a slice that is as small as they get."""
    return Output(1, {"data": pa.table({"n": [piece.payload["n"]]})})


def stage(count: int) -> Stage:
    """Return a stage of that many slices."""

    def run(context: Context) -> None:
        slices = [Slice(f"{i:06d}", {"n": i}, 1) for i in range(count)]
        context.map_slices(slices, one_row)
        context.commit(slices)

    return Stage("numbers", run, Params())


def measure(workdir: Store, count: int) -> None:
    """Commit slices in this process, then read, plan and tell."""
    made = stage(count)
    identity = made.identity({})
    folder = workdir.sub(f"numbers/{fingerprint_of(identity)}")
    slices = [Slice(f"{i:06d}", {"n": i}, 1) for i in range(count)]
    folder.write_bytes(IDENTITY, canonical_json(identity))
    seconds: dict[str, float] = {}
    plain = 0.0
    for piece in slices:
        output = one_row(piece)
        began = time.perf_counter()
        part = commit_slice(folder, piece, output, 1024)
        seconds["commit"] = seconds.get("commit", 0) + time.perf_counter() - began
        began = time.perf_counter()
        bare(Path(workdir.native_path("bare")), part.tables["data"].bytes, len(part.to_bytes()))
        plain += time.perf_counter() - began
    began = time.perf_counter()
    parts = read_parts(folder)
    seconds["resume"] = time.perf_counter() - began
    context = Context(
        stage=made,
        fingerprint=folder.name,
        folder=folder,
        input_folders={},
        progress=StageProgress("numbers", folder, Shown(Console(file=io.StringIO()), None)),
        log=RunLog("", "run"),
        stopping=threading.Event(),
    )
    context._parts = parts
    began = time.perf_counter()
    context.commit(slices)
    seconds["manifest"] = time.perf_counter() - began
    record = {"name": "x", "stages": {"numbers": folder.name}, "started_at": time.time()}
    workdir.write_bytes("workflows/x/record.json", canonical_json(record))
    began = time.perf_counter()
    make_plan([made], workdir)
    seconds["plan"] = time.perf_counter() - began
    began = time.perf_counter()
    Console(file=io.StringIO()).print(status_table(workdir, latest_record(workdir) or {}))
    status = time.perf_counter() - began
    told = ", ".join(f"{name} {1000 * s / count:.3f}" for name, s in seconds.items())
    total = 1000 * sum(seconds.values()) / count
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{count} slices: {total:.2f} ms a slice ({told}); bare files {1000 * plain / count:.3f}, "
        f"commit at {seconds['commit'] / plain:.2f}x of them; status {status:.2f} s; "
        f"peak memory {memory:.0f} MB\n"
    )


def bare(folder: Path, *sizes: int) -> None:
    """Write and flush files of these sizes, and their folder, as a commit must."""
    folder.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        with (folder / "file").open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def whole(workdir: Store, count: int) -> None:
    """Run the stage through Ray."""
    recipe = Recipe(name="bench", cluster=ClusterParams(object_store_mb=256))
    flow = Workflow(recipe, (stage(count),))
    run = partial(flow.run, workdir, Console(file=io.StringIO()))
    began = time.perf_counter()
    run()
    sys.stdout.write(
        f"{count} slices through Ray, its start included: "
        f"{1000 * (time.perf_counter() - began) / count:.2f} ms a slice\n"
    )


if __name__ == "__main__":
    main()
