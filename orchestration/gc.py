"""Garbage collection: removing outputs that no workflow record of the workdir refers to.

An output is kept while some workflow record names it, or a recipe of these by its path, as one does
that takes an earlier tokenizer. With ``keep_last``, only that number of the newest records counts.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from orchestration.errors import StoreError
from orchestration.manifest import MANIFEST
from orchestration.plan import IDENTITY, WORKFLOWS, recipe_path, records_of
from orchestration.reporting.logs import LOGS
from orchestration.reporting.tracking import MLFLOW_ARTIFACTS
from orchestration.storage.store import Store

_NOT_OUTPUTS: Final = (WORKFLOWS, LOGS, MLFLOW_ARTIFACTS)
STALE_UPLOAD: Final = timedelta(days=1)


@dataclass(frozen=True)
class Garbage:
    """An output that can be removed."""

    path: str
    "Path of its folder within the workdir."
    bytes: int
    what: str
    "``complete`` or ``unfinished``."


def garbage(workdir: Store, keep_last: int | None = None) -> list[Garbage]:
    """Return the outputs that no kept workflow record names.

    Args:
        workdir: folder to search.
        keep_last: number of newest workflow records to keep; None keeps all.
    """
    records = sorted(records_of(workdir), key=lambda record: -record["started_at"])
    kept = records if keep_last is None else records[:keep_last]
    named = {
        f"{stage}/{fingerprint}"
        for record in kept
        for stage, fingerprint in record["stages"].items()
    }
    paths = [recipe_path(record["stages"]) for record in kept]
    recipes = [workdir.read(path).decode() for path in paths if workdir.exists(path)]
    found = []
    for path in _outputs(workdir):
        if path not in named and not any(path in recipe for recipe in recipes):
            state = "complete" if workdir.exists(f"{path}/{MANIFEST}") else "unfinished"
            found.append(Garbage(path, sum(size for _, size in workdir.walk(path)), state))
    return found


def collect(workdir: Store, found: list[Garbage]) -> None:
    """Remove outputs, each starting with its manifest, so no reader trusts a partial one."""
    for item in found:
        workdir.remove(f"{item.path}/{MANIFEST}")
        workdir.remove(item.path)


def abort_stale_uploads(workdir: Store) -> int:
    """Abort unfinished multipart uploads of an object store; return their number.

    Raises:
        StoreError: they may not be listed or aborted, which needs rights of its own.
    """
    if workdir.is_local:
        return 0
    from orchestration.storage.s3_files import ObjectFiles

    files = workdir.files
    assert isinstance(files, ObjectFiles)
    try:
        stale = files.stale_uploads(workdir.native_path(), STALE_UPLOAD)
        for key, upload_id in stale:
            files.abort_upload(workdir.native_path(), key, upload_id)
    except OSError as error:
        raise StoreError(
            f"{workdir.uri}: unfinished uploads were not all aborted ({error}); outputs are removed"
        ) from error
    return len(stale)


def _outputs(workdir: Store, folder: str = "") -> list[str]:
    """Return the path of every folder that holds a stage's output, recognized by ``stage.json``."""
    found = []
    for name in workdir.folders(folder):
        path = f"{folder}/{name}" if folder else name
        if path in _NOT_OUTPUTS:
            continue
        if workdir.exists(f"{path}/{IDENTITY}"):
            found.append(path)
        elif path.count("/") < 2:  # the name of a stage has at most one "/"
            found += _outputs(workdir, path)
    return found
