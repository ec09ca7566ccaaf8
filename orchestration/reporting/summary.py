"""Tables for the terminal: a plan, the state of a workdir, and the results of its stages."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from orchestration.gc import Garbage
from orchestration.manifest import MANIFEST, PARTS, Manifest, read_manifest
from orchestration.plan import PlannedStage, State
from orchestration.reporting.estimates import Estimate
from orchestration.reporting.progress import read_heartbeat
from orchestration.reporting.usage import read_usage
from orchestration.storage.store import Store

_COLORS = {
    State.FRESH: "green",
    State.INTERRUPTED: "yellow",
    State.STALE: "yellow",
    State.MISSING: "cyan",
}


def plan_table(plan: Sequence[PlannedStage], estimates: Mapping[str, Estimate]) -> Table:
    """Return a table of a plan: one row per stage with its state, the reason, and estimates."""
    table = Table("stage", "state", "why", title="plan", title_justify="left")
    for column in ("rows", "bytes", "time", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("fingerprint", no_wrap=True)
    for planned in plan:
        color = _COLORS[planned.state]
        expected = estimates[planned.stage.name]
        about = "" if expected.measured else "≈ "
        table.add_row(
            planned.stage.name,
            f"[{color}]{planned.state}[/]",
            planned.reason,
            _known(about, expected.rows, human_number),
            _known(about, expected.bytes, human_bytes),
            _known(about, expected.seconds, human_seconds),
            _known(about, expected.memory, human_bytes),
            planned.fingerprint,
        )
    return table


def _known(about: str, value: float | None, words: Callable[[float], str]) -> str:
    return "?" if value is None else about + words(value)


def status_table(workdir: Store, record: Mapping[str, Any]) -> Table:
    """Return a table of the state of a workflow's stages, read from the store alone.

    Args:
        workdir: folder of the outputs.
        record: record of the workflow, as :func:`orchestration.plan.latest_record` returns it.
    """
    table = Table(
        "stage", "state", "done", "last update", title=record["name"], title_justify="left"
    )
    for name, fingerprint in record["stages"].items():
        folder = workdir.sub(f"{name}/{fingerprint}")
        if folder.exists(MANIFEST):
            table.add_row(name, "[green]fresh[/]", f"{read_manifest(folder).num_rows_out()} rows")
            continue
        heartbeat = read_heartbeat(folder)
        if heartbeat is None:
            table.add_row(name, "[cyan]missing[/]", "")
            continue
        parts = len(folder.names(PARTS, ".json"))
        done = f"{heartbeat['done']}/{heartbeat['total']} {heartbeat['unit']}"
        table.add_row(
            name,
            "[yellow]started[/]",
            f"{done}, {parts} slices committed" if parts else done,
            f"{_ago(heartbeat['updated_at'])}: {heartbeat['note']}",
        )
    return table


def stages_table(workdir: Store, fingerprints: Mapping[str, str]) -> Table:
    """Return a table of the committed stages: rows, rejects by reason, bytes, seconds."""
    table = Table("stage", title="stages", title_justify="left")
    for column in ("rows in", "rows out", "bytes", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("rejects by reason")
    for name, fingerprint in fingerprints.items():
        folder = workdir.sub(f"{name}/{fingerprint}")
        if not folder.exists(MANIFEST):
            continue
        manifest = read_manifest(folder)
        rejects = ", ".join(f"{reason} {n}" for reason, n in sorted(manifest.rejects.items()))
        table.add_row(
            name,
            str(manifest.num_rows_in),
            str(manifest.num_rows_out()),
            human_bytes(manifest.num_bytes),
            f"{read_usage(folder).seconds:.1f}",
            rejects,
        )
    return table


def garbage_table(found: Sequence[Garbage]) -> Table:
    """Return a table of the outputs that can be removed."""
    table = Table("output", title="garbage", title_justify="left")
    table.add_column("bytes", justify="right")
    table.add_column("state")
    for item in found:
        table.add_row(item.path, human_bytes(item.bytes), item.what)
    return table


def stage_metrics(manifest: Manifest) -> dict[str, float]:
    """Return a stage's results under the metric names that MLflow and the reports share."""
    metrics: dict[str, float] = {
        "num_rows_in": manifest.num_rows_in,
        "num_rows_out": manifest.num_rows_out(),
        "num_bytes": manifest.num_bytes,
    }
    metrics |= {f"rejects/{reason}": n for reason, n in manifest.rejects.items()}
    metrics |= {f"counters/{name}": n for name, n in manifest.counters.items()}
    return metrics | dict(manifest.numbers)


def human_number(number: float) -> str:
    """Return a count for display, as in ``3.4M``."""
    for unit in ("", "k", "M"):
        if number < 1000 or (not unit and number < 10_000):
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}G"


def human_seconds(seconds: float) -> str:
    """Return a duration for display, as in ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def human_bytes(num_bytes: float) -> str:
    """Return a size for display, as in ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _ago(timestamp: float) -> str:
    seconds = int(time.time() - timestamp)
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"
