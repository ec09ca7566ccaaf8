"""The engine's cost per slice, against plain files of the same sizes.

    python benchmarks/engine.py [--slices 10000] [--smoke]

Measures a stage whose slices hold one row each: milliseconds per slice of commit, resume (reading
every part), manifest, plan and status, and peak memory, at a tenth of the slices and at all of
them. The peer: after each commit, files of the same sizes are written and flushed with ``open``;
the printed ratio is commit time over the peer's time. The same stage then runs through Ray; its
printed ratio is the time per slice over that of the commit alone.
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
from measuring import parse_options, timed
from rich.console import Console

from orchestration import Context, Output, Recipe, Slice, Stage, Workflow
from orchestration.fingerprint import canonical_json, fingerprint_of
from orchestration.manifest import read_parts
from orchestration.params import StageParams
from orchestration.plan import IDENTITY, latest_record, make_plan
from orchestration.recipe import ClusterParams
from orchestration.reporting.progress import Shown, StageProgress
from orchestration.reporting.run_log import RunLog
from orchestration.reporting.summary import status_table
from orchestration.slice_commit import commit_slice
from orchestration.storage.store import Store


class Params(StageParams):
    """No parameters."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=10_000)
    num_slices = parse_options(parser, slices=20).slices
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for count in (num_slices // 10, num_slices):
            commit_ms = measure(Store(f"{folder}/{count}"), count)
        through_ray(Store(f"{folder}/ray"), num_slices, commit_ms)


def one_row(slice_: Slice) -> Output:
    """Return the output of the smallest slice: one row."""
    return Output(1, {"data": pa.table({"n": [slice_.payload["n"]]})})


def stage(count: int) -> Stage:
    """Return a stage of ``count`` slices."""

    def run(context: Context) -> None:
        slices = [Slice(f"{i:06d}", {"n": i}, 1) for i in range(count)]
        context.map_slices(slices, one_row)
        context.commit(slices)

    return Stage("numbers", run, Params())


def measure(workdir: Store, count: int) -> float:
    """Commit slices in this process, then resume, plan and show; return a commit's milliseconds."""
    numbers = stage(count)
    identity = numbers.identity({})
    folder = workdir.sub(f"numbers/{fingerprint_of(identity)}")
    slices = [Slice(f"{i:06d}", {"n": i}, 1) for i in range(count)]
    folder.write_bytes(IDENTITY, canonical_json(identity))
    seconds = {"commit": 0.0}
    peer = 0.0
    for slice_ in slices:
        output = one_row(slice_)
        began = time.perf_counter()
        part = commit_slice(folder, slice_, output, 1024)
        seconds["commit"] += time.perf_counter() - began
        sizes = part.tables["data"].bytes, len(part.to_bytes())
        peer += timed(partial(write_plain_files, Path(workdir.native_path("plain")), *sizes))
    began = time.perf_counter()
    parts = read_parts(folder)
    seconds["resume"] = time.perf_counter() - began
    context = Context(
        stage=numbers,
        fingerprint=folder.name,
        folder=folder,
        input_folders={},
        progress=StageProgress("numbers", folder, Shown(Console(file=io.StringIO()), None)),
        log=RunLog("", "run"),
        stopping=threading.Event(),
    )
    context._parts = parts
    seconds["manifest"] = timed(partial(context.commit, slices))
    record = {"name": "x", "stages": {"numbers": folder.name}, "started_at": time.time()}
    workdir.write_bytes("workflows/x/record.json", canonical_json(record))
    seconds["plan"] = timed(partial(make_plan, [numbers], workdir))
    began = time.perf_counter()
    Console(file=io.StringIO()).print(status_table(workdir, latest_record(workdir) or {}))
    status = time.perf_counter() - began
    ms = {name: 1000 * value / count for name, value in seconds.items()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{count} slices: {sum(ms.values()):.2f} ms per slice "
        f"({', '.join(f'{name} {value:.3f}' for name, value in ms.items())}); plain files "
        f"{1000 * peer / count:.3f} ms, commit {seconds['commit'] / peer:.2f}x of that; "
        f"status {status:.2f} s; peak memory {memory:.0f} MB\n"
    )
    return ms["commit"]


def write_plain_files(folder: Path, *sizes: int) -> None:
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


def through_ray(workdir: Store, count: int, commit_ms: float) -> None:
    """Run the stage through Ray and print its time beside a commit's."""
    recipe = Recipe(name="bench", cluster=ClusterParams(object_store_mb=256))
    flow = Workflow(recipe, (stage(count),))
    ms = 1000 * timed(partial(flow.run, workdir, Console(file=io.StringIO()))) / count
    sys.stdout.write(
        f"{count} slices through Ray, start of the session included: {ms:.2f} ms per slice, "
        f"{ms / commit_ms:.2f}x of the commit alone\n"
    )


if __name__ == "__main__":
    main()
