"""The interface behind :class:`orchestration.storage.store.Store`: what a place for files can do.

Paths are whole: an absolute path of a disk, ``bucket/key`` of an object store. A file has a
*version* (a digest, an ETag) by which two writers can tell who came first.
"""

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Annotated, Protocol

import pyarrow as pa
from pydantic import Field

from orchestration.params import OPERATIONAL, StageParams


class StorageParams(StageParams):
    """How an object store is reached. Credentials come from the environment alone."""

    endpoint_url: Annotated[str | None, OPERATIONAL] = None
    "Of an S3-compatible store, for boto3, pyarrow, Ray Train and MLflow alike; null is AWS."
    region: Annotated[str | None, OPERATIONAL] = None
    connect_timeout_s: Annotated[float, OPERATIONAL] = Field(default=10, gt=0)
    read_timeout_s: Annotated[float, OPERATIONAL] = Field(default=60, gt=0)
    max_attempts: Annotated[int, OPERATIONAL] = Field(default=6, ge=1)
    "At one request, with a growing pause between them."


@dataclass(frozen=True)
class Entry:
    """A child of a folder."""

    name: str
    is_folder: bool
    bytes: int


class Files(Protocol):
    """A kind of place. Every method raises OSError with a message where it cannot do its work."""

    def entry(self, path: str) -> Entry | None:
        """Describe a file or folder; None if there is none."""

    def children(self, folder: str) -> list[Entry]:
        """List a folder, in no order; empty if there is none."""

    def open(self, path: str) -> pa.NativeFile:
        """Open for reads at any place."""

    def writing(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open for an atomic, durable write: nothing appears if the block raises."""

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """Return a small file's bytes and version; None if there is none."""

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write if the file still has ``version`` (None: is absent); return the new, or None."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; nothing if there is none."""


class Digesting:
    """A file for writing that knows how many bytes went in, and their SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write and count."""
        view = memoryview(data)
        self._sha256.update(view)
        self.bytes += view.nbytes
        return self._file.write(view)

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what was written so far."""
        return self._sha256.hexdigest()

    def tell(self) -> int:
        """Bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Pass on what is buffered."""
        self._file.flush()

    def close(self) -> None:
        """Nothing: the store closes the file."""

    def readable(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Never."""
        return False
