"""Tables for the terminal: a plan, the state of a workdir, and the results of its stages."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from orchestration.checkpoint_files import newest_whole, step_of
from orchestration.gc import Garbage
from orchestration.manifest import MANIFEST, PARTS, read_manifest
from orchestration.plan import PlannedStage, State
from orchestration.reporting.attempts import Attempt, read_attempt
from orchestration.reporting.estimates import Estimate
from orchestration.reporting.progress import read_heartbeat
from orchestration.reporting.results import (
    has_rows,
    human_bytes,
    human_number,
    human_seconds,
    result_words,
)
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
            escape(planned.reason),
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
            table.add_row(name, "[green]fresh[/]", result_words(folder, read_manifest(folder)))
            continue
        attempt = read_attempt(workdir, folder)
        if attempt is None:
            table.add_row(name, "[cyan]missing[/]", "")
            continue
        heartbeat = read_heartbeat(folder)
        done = _done(folder, attempt, heartbeat)
        table.add_row(name, _state(attempt), done, _last(attempt, heartbeat))
    return table


def _state(attempt: Attempt) -> str:
    color = {"running": "yellow", "failed": "red", "interrupted": "yellow"}[attempt.state]
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(attempt.since))
    return f"[{color}]{attempt.state}[/] since {since}"


def _done(folder: Store, attempt: Attempt, heartbeat: Mapping[str, Any] | None) -> str:
    parts = len(folder.names(PARTS, ".json"))
    words = []
    if heartbeat:
        done, total, unit = (heartbeat[key] for key in ("done", "total", "unit"))
        if unit == "steps" and not (
            attempt.state == "running" and heartbeat["updated_at"] >= attempt.since
        ):  # steps after the newest checkpoint are lost
            checkpoint = newest_whole(folder, read=False)
            done = step_of(checkpoint) if checkpoint else 0
        words.append(f"{done}/{total} {unit}")
    return ", ".join([*words, f"{parts} slices committed"] if parts else words)


def _last(attempt: Attempt, heartbeat: Mapping[str, Any] | None) -> str:
    if attempt.error:
        return escape(attempt.error)
    return f"{_ago(heartbeat['updated_at'])}: {heartbeat['note']}" if heartbeat else ""


def stages_table(workdir: Store, fingerprints: Mapping[str, str]) -> Table:
    """Return a table of the committed stages: rows, bytes, seconds, and rejects or results."""
    table = Table("stage", title="stages", title_justify="left")
    for column in ("rows in", "rows out", "bytes", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("rejects by reason, or results")
    for name, fingerprint in fingerprints.items():
        folder = workdir.sub(f"{name}/{fingerprint}")
        if not folder.exists(MANIFEST):
            continue
        manifest = read_manifest(folder)
        rejects = ", ".join(f"{reason} {n}" for reason, n in manifest.rejects.most_common())
        rows = has_rows(manifest)
        table.add_row(
            name,
            str(manifest.num_rows_in) if rows else "",
            str(manifest.num_rows_out()) if rows else "",
            human_bytes(manifest.num_bytes),
            f"{read_usage(folder).seconds:.1f}",
            rejects if rows else result_words(folder, manifest),
        )
    return table


def garbage_table(found: Sequence[Garbage]) -> Table:
    """Return a table of the outputs that can be removed."""
    table = Table("output", title="unused outputs", title_justify="left")
    table.add_column("bytes", justify="right")
    table.add_column("state")
    for item in found:
        table.add_row(item.path, human_bytes(item.bytes), item.what)
    return table


def _ago(timestamp: float) -> str:
    seconds = int(time.time() - timestamp)
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"
