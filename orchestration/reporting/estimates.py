"""What the stages of a plan will give and take, from the recipe and from earlier runs.

An earlier run of a stage, with whatever parameters, is scaled by the rows that there are to do now
against those that there were then. What the recipe itself says comes first: it knows the number of
training steps and the size of a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.manifest import MANIFEST, Manifest, read_manifest
from orchestration.plan import PlannedStage, State
from orchestration.reporting.usage import Expected, Usage, read_usage
from orchestration.storage.store import Store


@dataclass(frozen=True)
class Estimate:
    """What a stage gives and takes; None where nothing says."""

    rows: int | None = None
    "Of all its tables but the rejects; for training, samples."
    bytes: int | None = None
    seconds: float | None = None
    memory: int | None = None
    "Bytes of its largest worker."
    measured: bool = False
    "The stage is there: these are its own numbers."


def estimate(plan: Sequence[PlannedStage], workdir: Store) -> dict[str, Estimate]:
    """Return an estimate for each stage of a plan, by name."""
    estimates: dict[str, Estimate] = {}
    for planned in plan:
        stage = planned.stage
        if planned.state is State.FRESH:
            estimates[stage.name] = _measured(workdir.sub(planned.path))
            continue
        inputs = [estimates[name].rows for name in stage.input_names]
        rows_in = None if None in inputs or not inputs else sum(filter(None, inputs))
        expected = stage.expects()
        estimates[stage.name] = _estimate(expected, rows_in, _earlier(workdir, stage.name))
    return estimates


def _measured(folder: Store) -> Estimate:
    manifest, usage = read_manifest(folder), read_usage(folder)
    rows = manifest.num_rows_out() or usage.work
    return Estimate(rows, manifest.num_bytes, usage.seconds, usage.memory or None, measured=True)


def _estimate(
    expected: Expected, rows_in: int | None, earlier: tuple[Manifest, Usage] | None
) -> Estimate:
    rows, size, seconds, memory = expected.rows, expected.bytes, None, expected.memory
    if earlier is not None:
        manifest, usage = earlier
        now, then = expected.rows or rows_in, usage.work or manifest.num_rows_in
        scale = now / then if now and then else 1.0
        seconds = usage.seconds * scale
        rows = rows or round(manifest.num_rows_out() * scale) or None
        size = size or round(manifest.num_bytes * scale)
        memory = memory or usage.memory or None
    return Estimate(rows, size, seconds, memory)


def _earlier(workdir: Store, name: str) -> tuple[Manifest, Usage] | None:
    """The whole output of a stage that was made last, under any fingerprint."""
    whole = [
        folder
        for fingerprint in workdir.folders(name)
        if (folder := workdir.sub(f"{name}/{fingerprint}")).exists(MANIFEST)
    ]
    if not whole:
        return None
    usage, folder = max(((read_usage(f), f) for f in whole), key=lambda pair: pair[0].ended_at)
    return read_manifest(folder), usage
