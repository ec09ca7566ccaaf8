"""The line of a source file that a rejected row came from, and the recipe that names the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from orchestration.errors import PipelineError
from orchestration.plan import recipe_path, records_of
from orchestration.recipe_text import parse_recipe
from orchestration.storage.store import Store

_LONGEST: Final = 2000
"Characters of a line that are shown."


def recipe_of(workdir: Store, stage: str, fingerprint: str) -> tuple[Mapping[str, Any], float]:
    """Return the recipe of the newest workflow that has an output, and when the workflow started.

    Nothing is returned as the recipe if there is no such workflow; the start is in Unix seconds.
    """
    records = [r for r in records_of(workdir) if r["stages"].get(stage) == fingerprint]
    if not records:
        return {}, 0.0
    newest = max(records, key=lambda record: record["started_at"])
    path = recipe_path(newest["stages"])
    started_at = float(newest["started_at"])
    try:
        return parse_recipe(workdir.read(path), workdir.uri_of(path))[0], started_at
    except PipelineError:  # a place in the source is named without its file
        return {}, started_at


def text_at(where: str, started_at: float) -> str | None:
    """Return the line at ``<file>:<number>`` of a plain text file on this machine, or None.

    Words say so if the file was written after ``started_at``, in Unix seconds: another row may
    stand at the number now.
    """
    file, _, number = where.rpartition(":")
    path = Path(file)
    if not number.isdecimal() or path.suffix in (".gz", ".zst", ".xz", ".bz2", ".parquet"):
        return None
    try:
        if path.stat().st_mtime > started_at:
            return f"not known: {file} was written after the run started"
        with path.open("rb") as lines:
            for i, line in enumerate(lines, start=1):
                if i == int(number):
                    return line.decode("utf-8", "replace").rstrip("\r\n")[:_LONGEST]
    except OSError:  # on another machine, or in an archive
        return None
    return None
