"""Files on a disk, or on a network file system that every node mounts."""

import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa

from orchestration.storage.files import Entry

TEMPORARY = ".tmp-"
_GUARD = ".guard"


class LocalFiles:
    """See :class:`orchestration.storage.files.Files`."""

    def entry(self, path: str) -> Entry | None:
        """Describe a file or folder; None if there is none."""
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(Path(path).name, stat.S_ISDIR(status.st_mode), status.st_size)

    def children(self, folder: str) -> list[Entry]:
        """List a folder, in no order; empty if there is none."""
        try:
            with os.scandir(folder) as found:
                return [
                    Entry(e.name, e.is_dir(), e.stat().st_size)
                    for e in found
                    if not e.name.startswith((TEMPORARY, _GUARD))
                ]
        except FileNotFoundError:
            return []

    def open(self, path: str) -> pa.NativeFile:
        """Open for reads at any place."""
        return pa.OSFile(path)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Open for an atomic, durable write: temporary name, flush to the disk, rename."""
        final = Path(path)
        temporary = final.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
            _sync_folder(final.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """Return a small file's bytes and their digest; None if there is none."""
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write if the file still has ``version`` (None: is absent); return the new one, or None.

        A guard file that is locked meanwhile makes the comparison and the write one step.
        """
        folder = Path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{_GUARD}-{Path(path).name}").open("wb") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            found = self.read_version(path)
            if (found[1] if found else None) != version:
                return None
            with self.writing(path) as file:
                file.write(data)
        return hashlib.sha256(data).hexdigest()

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; nothing if there is none."""
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
