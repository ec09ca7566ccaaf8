"""The store: where every dataset lies. Local paths for now, one interface for what will follow.

A write is atomic and durable: the bytes go to a temporary name, are flushed to the disk, and
only then get their name. A reader never sees half a file.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from orchestration.errors import StoreError

_TEMPORARY = ".tmp-"
_BLOCK_BYTES = 1 << 20


class Store:
    """A folder of the store. Paths given to its methods are relative, with ``/`` between parts."""

    def __init__(self, root: str | Path) -> None:
        """Open ``root``; it need not exist yet.

        Raises:
            StoreError: ``root`` is not a local path.
        """
        if "://" in str(root):
            raise StoreError(f"{root}: only local paths can hold a workdir in this version")
        self.root = Path(root).absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def sub(self, path: str) -> "Store":
        """Return the store of a folder below this one."""
        return Store(self.root / path)

    def path(self, path: str) -> Path:
        """Return the absolute path of ``path``."""
        return self.root / path

    def exists(self, path: str) -> bool:
        """Whether a committed file or folder of that name exists."""
        return (self.root / path).exists()

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise StoreError(f"{self.root / path}: {error.strerror}") from None

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of committed files in ``folder`` that end in ``suffix``."""
        try:
            found = [entry.name for entry in os.scandir(self.root / folder)]
        except FileNotFoundError:
            return []
        return sorted(n for n in found if n.endswith(suffix) and not n.startswith(_TEMPORARY))

    @contextlib.contextmanager
    def write(self, path: str) -> Iterator[IO[bytes]]:
        """Open ``path`` for an atomic, durable write.

        Raises:
            StoreError: it cannot be written.
        """
        final = self.root / path
        temporary = final.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
            _sync_folder(final.parent)
        except OSError as error:
            raise StoreError(f"{final}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write ``data`` to ``path``, atomically and durably."""
        with self.write(path) as file:
            file.write(data)

    def size_and_sha256(self, path: str) -> tuple[int, str]:
        """Return a file's size in bytes and its SHA-256."""
        digest, size = hashlib.sha256(), 0
        with (self.root / path).open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return size, digest.hexdigest()

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds, if it exists."""
        target = self.root / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
