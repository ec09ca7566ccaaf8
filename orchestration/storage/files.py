"""The interface of the file backends behind :class:`orchestration.storage.store.Store`.

A path is native: an absolute path on a disk, ``bucket/key`` in an object store. A file has a
*version* (a digest or an ETag), which makes conditional writes possible.
"""

import hashlib
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from shlex import quote
from typing import IO, TYPE_CHECKING, Annotated, Final, Protocol
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from orchestration.params import OPERATIONAL, StageParams

if TYPE_CHECKING:
    import pyarrow as pa


_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")


class StorageParams(StageParams):
    """Access to an object store. Credentials come from the standard chain of boto3 only."""

    endpoint_url: Annotated[str | None, OPERATIONAL] = None
    "Endpoint of an S3-compatible store, such as http://host:9000; null follows the environment."
    region: Annotated[str | None, OPERATIONAL] = None
    "Region of the bucket; null follows the environment."
    connect_timeout_s: Annotated[float, OPERATIONAL] = Field(default=10, gt=0)
    "Seconds to wait for a connection to the store."
    read_timeout_s: Annotated[float, OPERATIONAL] = Field(default=60, gt=0)
    "Seconds to wait for a response of the store."
    max_attempts: Annotated[int, OPERATIONAL] = Field(default=6, ge=1)
    "Largest number of attempts per request, with exponential backoff."

    @field_validator("endpoint_url")
    @classmethod
    def _usable(cls, endpoint_url: str | None) -> str | None:
        return None if endpoint_url is None else checked_endpoint(endpoint_url)

    def as_options(self, name: str, uri: str) -> str:
        """Return the options of a command line that name a folder, quoted for a shell.

        Args:
            name: option that takes the folder, such as ``--workdir``.
            uri: of the folder.
        """
        options = {name: uri, "--endpoint-url": self.endpoint_url, "--region": self.region}
        return " ".join(f"{key} {quote(value)}" for key, value in options.items() if value)


def checked_endpoint(url: str) -> str:
    """Return an endpoint without a slash at its end.

    Raises:
        ValueError: it is not ``http(s)://host`` or ``http(s)://host:port``; pyarrow can follow
            nothing else. The message has the right spelling.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url} is not a URL ({error}); write https://host:port") from None
    if parts.scheme not in ("http", "https") or not host:
        bare = re.sub(r"^(?:\w+:)?/+", "", url)
        scheme = "http" if bare.startswith(("localhost", "127.", "[::1]")) else "https"
        raise ValueError(f"{url} has no scheme http:// or https://; write {scheme}://{bare}")
    if port == 0 or not (_HOST.fullmatch(host) or ":" in host):
        raise ValueError(
            f"{url} is not a URL of a host (ASCII letters, digits, . - _) and a port above 0; "
            "write https://host:port"
        )
    name = f"[{host}]" if ":" in host else host
    plain = f"{parts.scheme}://{name}" + (f":{port}" if port else "")
    if "@" in parts.netloc:
        raise ValueError(
            f"{plain} is given with a user name or password; write {plain}, and give the "
            "credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise ValueError(f"{url} has more than a host and a port; write {plain}")
    return plain


@dataclass(frozen=True)
class Entry:
    """A file or sub-folder of a folder."""

    name: str
    is_folder: bool
    bytes: int
    "Size of a file; meaningless for a folder."


class Files(Protocol):
    """A file backend. Every method raises OSError with a message if it fails."""

    def entry(self, path: str) -> Entry | None:
        """Return the entry of a file or folder, or None if it does not exist."""

    def children(self, folder: str) -> list[Entry]:
        """Return the entries of a folder in any order; empty if it does not exist."""

    def open(self, path: str) -> "pa.NativeFile":
        """Open a file for reading with random access."""

    def writing(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file for an atomic, durable write; nothing appears if the block raises."""

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """Return a small file's content and version, or None if it does not exist."""

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write ``data`` if the file still has ``version``, where None means that it is absent.

        Returns the new version, or None if nothing was written.
        """

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything in it; do nothing if it does not exist."""


class Digesting:
    """A writable file that computes the number and SHA-256 of the bytes written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write ``data``; return the number of bytes written."""
        view = memoryview(data)
        self._sha256.update(view)
        self.bytes += view.nbytes
        return self._file.write(view)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes written so far."""
        return self._sha256.hexdigest()

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Flush the underlying file."""
        self._file.flush()

    def close(self) -> None:
        """Do nothing: the store closes the underlying file."""

    def readable(self) -> bool:
        """Return False."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False."""
        return False
