"""The file backend of a local disk, or of a network file system that every node mounts."""

import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from orchestration.storage.files import Entry

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY = ".tmp-"
_GUARD = ".guard"


class LocalFiles:
    """Implements :class:`orchestration.storage.files.Files` for absolute paths."""

    def entry(self, path: str) -> Entry | None:
        """Return the entry of a file or folder, or None if it does not exist."""
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(Path(path).name, stat.S_ISDIR(status.st_mode), status.st_size)

    def children(self, folder: str) -> list[Entry]:
        """Return the entries of a folder in any order; empty if it does not exist."""
        try:
            with os.scandir(folder) as found:
                return [
                    Entry(e.name, e.is_dir(), e.stat().st_size)
                    for e in found
                    if not e.name.startswith((TEMPORARY, _GUARD))
                ]
        except FileNotFoundError:
            return []

    def open(self, path: str) -> "pa.NativeFile":
        """Open a file for reading with random access."""
        import pyarrow as pa

        return pa.OSFile(path)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for an atomic, durable write: temporary name, flush to the disk, rename."""
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
        """Return a small file's content and its digest, or None if it does not exist."""
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write ``data`` if the file still has ``version``, where None means that it is absent.

        Returns the new version, or None if nothing was written. An exclusive lock on a guard file
        makes the comparison and the write one step.
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
        """Remove a file, or a folder with everything in it; do nothing if it does not exist."""
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
