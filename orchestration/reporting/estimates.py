"""Estimates for the stages of a plan, from the recipe and from earlier runs.

The latest earlier run of a stage, with any parameters, is scaled by the ratio of the rows to
process now and then. Numbers that follow from the recipe itself, such as the number of training
steps or the size of a network, take precedence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.manifest import MANIFEST, Manifest, read_manifest
from orchestration.plan import PlannedStage
from orchestration.reporting.usage import Expected, Usage, Workers, read_usage
from orchestration.storage.store import Store


@dataclass(frozen=True)
class Estimate:
    """Expected output and resources of a stage; None where nothing is known."""

    rows: int | None = None
    "Number of rows of all tables except the rejects; for training, number of samples."
    bytes: int | None = None
    "Size of the output."
    seconds: float | None = None
    memory: int | None = None
    "Largest peak memory of a worker in bytes."
    measured: bool = False
    "Whether the numbers are those of the existing output."
    workers: Workers | None = None
    "The workers and their memory in the machines, as the stage predicts them."


def estimate(plan: Sequence[PlannedStage], workdir: Store) -> dict[str, Estimate]:
    """Return an estimate for each stage of a plan, by stage name."""
    estimates: dict[str, Estimate] = {}
    for planned in plan:
        stage = planned.stage
        if planned.manifest is not None:
            estimates[stage.name] = _measured(planned.manifest, workdir.sub(planned.path))
            continue
        inputs = [estimates[name].rows for name in stage.input_names]
        rows_in = None if None in inputs or not inputs else sum(filter(None, inputs))
        expected, sizes = stage.expects(), {}
        for name in stage.input_names:
            sizes[name] = Expected(estimates[name].rows, estimates[name].bytes)
        earlier = _earlier(workdir, stage.name)
        estimates[stage.name] = _estimate(expected, rows_in, stage.workers(sizes), earlier)
    return estimates


def _measured(manifest: Manifest, folder: Store) -> Estimate:
    usage = read_usage(folder)
    rows = manifest.num_rows_out() or usage.work
    return Estimate(rows, manifest.num_bytes, usage.seconds, usage.memory or None, measured=True)


def _estimate(
    expected: Expected,
    rows_in: int | None,
    workers: Workers | None,
    earlier: tuple[Manifest, Usage] | None,
) -> Estimate:
    rows, size, seconds = expected.rows, expected.bytes, None
    memory = expected.memory or (workers.memory if workers else None)
    if earlier is not None:
        manifest, usage = earlier
        now, then = expected.rows or rows_in, usage.work or manifest.num_rows_in
        scale = now / then if now and then else 1.0
        seconds = usage.seconds * scale
        rows = rows or round(manifest.num_rows_out() * scale) or None
        size = size or round(manifest.num_bytes * scale)
        memory = memory or usage.memory or None
    return Estimate(rows, size, seconds, memory, workers=workers)


def _earlier(workdir: Store, name: str) -> tuple[Manifest, Usage] | None:
    """Return the latest complete output of a stage under any fingerprint, or None."""
    complete = [
        folder
        for fingerprint in workdir.folders(name)
        if (folder := workdir.sub(f"{name}/{fingerprint}")).exists(MANIFEST)
    ]
    if not complete:
        return None
    usage, folder = max(((read_usage(f), f) for f in complete), key=lambda pair: pair[0].ended_at)
    return read_manifest(folder), usage
