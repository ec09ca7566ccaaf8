"""The results of a complete stage in words and numbers."""

import re
from collections.abc import Sequence
from typing import Final

from rich.markup import escape

from orchestration.manifest import Manifest
from orchestration.reporting.progress import read_heartbeat
from orchestration.storage.store import Store

_MAX_REASONS: Final = 3
_MAX_NUMBERS: Final = 4
_CHECKPOINT: Final = re.compile(r"(?:^|/)(step_\w+)/")


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


def has_rows(manifest: Manifest) -> bool:
    """Return whether the stage makes rows; a training or an export does not."""
    return bool(manifest.columns)


def result_line(
    name: str, folder: Store, manifest: Manifest, seconds: float, remarks: Sequence[str] = ()
) -> str:
    """Return the line, in rich markup, that announces a complete stage, and a line per remark."""
    # A stage without input rows belongs to a stream that the recipe does not train on.
    nothing = manifest.num_rows_in and not manifest.num_rows_out()
    mark = "[yellow]! no rows:[/]" if nothing else "[green]✓[/]"
    line = f"{mark} {name}: {escape(result_words(folder, manifest))}, {seconds:.1f} s"
    return "\n".join([line, *(f"  [yellow]![/] {name}: {escape(text)}" for text in remarks)])


def result_words(folder: Store, manifest: Manifest) -> str:
    """Return rows and most frequent rejects; without rows, the steps and losses, or numbers."""
    if has_rows(manifest):
        return _row_words(manifest)
    heartbeat = read_heartbeat(folder)
    if heartbeat and heartbeat["unit"] == "steps":
        words = [f"{heartbeat['done']} steps", heartbeat["note"]]
        found = {match[1] for file in manifest.files if (match := _CHECKPOINT.search(file.path))}
        words += [f"checkpoint {max(found)}"] if found else []
        skipped = manifest.numbers.get("num_skipped_steps", 0)
        words += [f"{skipped:.0f} steps skipped"] if skipped else []
    else:
        words = [f"{key} {value:.4g}" for key, value in manifest.numbers.items() if "/" not in key]
        words = words[:_MAX_NUMBERS] or [
            f"{len(manifest.files)} files" if manifest.files else "no rows"
        ]
    return ", ".join(filter(None, words))


def _row_words(manifest: Manifest) -> str:
    words = f"{manifest.num_rows_in} rows in, {manifest.num_rows_out()} out"
    if not manifest.rejects:
        return words
    top = manifest.rejects.most_common(_MAX_REASONS)
    reasons = ", ".join(f"{reason} {n}" for reason, n in top)
    more = ", …" if len(manifest.rejects) > _MAX_REASONS else ""
    return f"{words}, {manifest.rejects.total()} rejects ({reasons}{more})"


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
