"""Collecting garbage: outputs that no workflow of the workdir refers to any more.

A workflow record keeps what it names. Forgetting old records is the caller's choice: with
``keep_last`` only that many of the newest count.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from orchestration.manifest import MANIFEST
from orchestration.plan import IDENTITY, WORKFLOWS, records_of
from orchestration.reporting.logs import LOGS
from orchestration.storage.store import Store

_NEVER: Final = (WORKFLOWS, LOGS, "mlflow-artifacts", "miniweb")
STALE_UPLOAD: Final = timedelta(days=1)


@dataclass(frozen=True)
class Garbage:
    """Something that can go."""

    path: str
    bytes: int
    what: str


def garbage(workdir: Store, keep_last: int | None = None) -> list[Garbage]:
    """Return the outputs that no (kept) workflow record names, and records that are not kept."""
    records = sorted(records_of(workdir), key=lambda record: -record["started_at"])
    kept = records if keep_last is None else records[:keep_last]
    named = {
        f"{stage}/{fingerprint}"
        for record in kept
        for stage, fingerprint in record["stages"].items()
    }
    found = []
    for path in _outputs(workdir):
        if path not in named:
            state = "whole" if workdir.exists(f"{path}/{MANIFEST}") else "unfinished"
            found.append(Garbage(path, sum(size for _, size in workdir.walk(path)), state))
    return found


def collect(workdir: Store, found: list[Garbage]) -> None:
    """Remove garbage. Each output loses its manifest first, so nobody reads half of one."""
    for item in found:
        workdir.remove(f"{item.path}/{MANIFEST}")
        workdir.remove(item.path)


def abort_stale_uploads(workdir: Store) -> int:
    """Abort multipart uploads that nobody ends; return their number. Nothing on a disk."""
    if workdir.is_local:
        return 0
    from orchestration.storage.s3_files import ObjectFiles

    files = workdir.files
    assert isinstance(files, ObjectFiles)
    stale = files.stale_uploads(workdir.native_path(), STALE_UPLOAD)
    for key, upload_id in stale:
        files.abort_upload(workdir.native_path(), key, upload_id)
    return len(stale)


def _outputs(workdir: Store, folder: str = "") -> list[str]:
    """Every folder that holds a stage's output: it has ``stage.json``."""
    found = []
    for name in workdir.folders(folder):
        path = f"{folder}/{name}" if folder else name
        if path in _NEVER:
            continue
        if workdir.exists(f"{path}/{IDENTITY}"):
            found.append(path)
        elif path.count("/") < 2:  # a stage's name has at most one "/"
            found += _outputs(workdir, path)
    return found
