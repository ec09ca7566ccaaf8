"""The stages of a workflow for its report: state, time, cost, rows and rejects."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestration.errors import PipelineError
from orchestration.manifest import MANIFEST, REJECTS, Manifest, read_manifest
from orchestration.reporting.attempts import read_attempt
from orchestration.reporting.results import has_rows, result_words
from orchestration.reporting.usage import read_usage
from orchestration.storage.store import Store
from pipelines.report.results import SECTIONS

COMPLETE: Final = "complete"
_MEASURING: Final = ("evaluate",)
"Stages whose rows are measurements."
_MOST_REASONS: Final = 12


@dataclass(frozen=True)
class StageLine:
    """One stage; None where a number is not known."""

    name: str
    path: str
    "Folder of the output within the workdir."
    state: str
    words: str
    "Its result, or why it has none."
    seconds: float
    "Over all attempts."
    memory: int
    "Largest peak memory of a worker in bytes."
    gpu_hours: float | None
    bytes: int | None
    manifest: Manifest | None

    @property
    def rows(self) -> "Rows | None":
        """Rows of a complete stage that makes rows."""
        return Rows.of(self.manifest) if self.manifest and has_rows(self.manifest) else None


@dataclass(frozen=True)
class Rows:
    """Rows of a stage."""

    rows_in: int
    tables: Sequence[tuple[str, int]]
    "Name and rows of each table but the rejects."
    rejects: Sequence[tuple[str, int]]
    "Reasons, the most frequent first, each with its rows."
    num_rejects: int

    @classmethod
    def of(cls, manifest: Manifest) -> "Rows":
        """Count the rows of an output."""
        tables = [
            (name, manifest.num_rows(name))
            for name in sorted(manifest.columns)
            if not name.endswith(REJECTS)
        ]
        found = manifest.rejects.most_common()
        shown = found[:_MOST_REASONS]
        if left := sum(number for _, number in found[_MOST_REASONS:]):
            shown.append((f"{len(found) - _MOST_REASONS} other reasons", left))
        return cls(manifest.num_rows_in, tables, shown, manifest.rejects.total())

    @property
    def num_kept(self) -> int:
        """Rows of all tables but the rejects."""
        return sum(number for _, number in self.tables)


def stage_lines(
    workdir: Store, stages: Mapping[str, str], recipe: Mapping[str, Any]
) -> list[StageLine]:
    """Return a line for each stage of a workflow.

    Args:
        workdir: folder of the outputs.
        stages: fingerprints by name.
        recipe: content of the workflow's recipe, which says how many GPUs a stage reserves.
    """
    return [_line(workdir, name, f"{name}/{fp}", recipe) for name, fp in stages.items()]


def _line(workdir: Store, name: str, path: str, recipe: Mapping[str, Any]) -> StageLine:
    folder = workdir.sub(path)
    manifest: Manifest | None = None
    state, words = "missing", ""
    try:
        if folder.exists(MANIFEST):
            manifest = read_manifest(folder)
            state, words = COMPLETE, result_words(folder, manifest)
        elif attempt := read_attempt(workdir, folder):
            state, words = attempt.state, attempt.error
    except PipelineError as error:
        state, words = "damaged", str(error)
    usage = read_usage(folder)
    gpus = num_gpus(recipe, name)
    return StageLine(
        name,
        path,
        state,
        words,
        usage.seconds,
        usage.memory,
        None if gpus is None else gpus * usage.seconds / 3600,
        manifest.num_bytes if manifest else None,
        manifest,
    )


def num_gpus(recipe: Mapping[str, Any], stage: str) -> float | None:
    """Return how many GPUs a stage reserves; None if their number may change while it runs."""
    section = recipe.get(SECTIONS.get(stage, stage.split("/")[0]))
    if not isinstance(section, Mapping):
        return 0
    if section.get("use_gpu"):
        workers = section.get("num_workers", 1)
        return float(workers) if isinstance(workers, int | float) else None
    return float(section.get("gpus_per_actor") or 0) * float(section.get("num_actors") or 1)


def funnel(lines: Sequence[StageLine]) -> Iterator[tuple[StageLine, Rows, float]]:
    """Yield the stages that make rows of data, with the fraction of rows that is no reject."""
    for line in lines:
        if (rows := line.rows) and line.name not in _MEASURING:
            total = rows.num_kept + rows.num_rejects
            yield line, rows, rows.num_kept / total if total else 0.0
