"""Tables for people: a plan, the state of a workdir, and what each stage did."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from orchestration.manifest import MANIFEST, PARTS, read_manifest
from orchestration.plan import PlannedStage, State
from orchestration.progress import read_heartbeat
from orchestration.store import Store
from orchestration.workflow import stage_seconds

_COLOURS = {
    State.FRESH: "green",
    State.INTERRUPTED: "yellow",
    State.STALE: "yellow",
    State.MISSING: "cyan",
}


def plan_table(plan: Sequence[PlannedStage]) -> Table:
    """Return the plan: a row per stage with its state and the reason."""
    table = Table("stage", "state", "why", "fingerprint", title="plan", title_justify="left")
    for planned in plan:
        colour = _COLOURS[planned.state]
        table.add_row(
            planned.stage.name,
            f"[{colour}]{planned.state}[/]",
            planned.reason,
            planned.fingerprint,
        )
    return table


def status_table(workdir: Store, record: Mapping[str, Any]) -> Table:
    """Return what the store holds of the workflow that last started in ``workdir``."""
    table = Table(
        "stage", "state", "done", "last sign of life", title=record["name"], title_justify="left"
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
            "[yellow]begun[/]",
            f"{done}, {parts} slices committed" if parts else done,
            f"{_ago(heartbeat['updated_at'])}: {heartbeat['note']}",
        )
    return table


def stages_table(workdir: Store, fingerprints: Mapping[str, str]) -> Table:
    """Return a row per committed stage: rows in and out, rejects by reason, bytes, seconds."""
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
            f"{stage_seconds(folder):.1f}",
            rejects,
        )
    return table


def human_bytes(num_bytes: float) -> str:
    """Return a size in words, as in ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _ago(timestamp: float) -> str:
    seconds = int(time.time() - timestamp)
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"
