"""The store: a folder that holds datasets, local or ``s3://bucket/prefix``.

A write is atomic and durable: a reader sees the complete file or none. Errors name the object.
"""

import atexit
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from orchestration.errors import StoreError
from orchestration.storage.files import Digesting, Files, StorageParams
from orchestration.storage.json_records import Kind, list_of, object_of
from orchestration.storage.local_files import LocalFiles

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

_BLOCK_BYTES = 1 << 20
_S3 = "s3://"
_SCHEME = re.compile(r"\w+://|(?:s3[an]?|gs|https?|file):", re.IGNORECASE)
_UNFIT_IN_PREFIX = re.compile(r"[#?%\\\x00-\x1f\x7f]|//|(?<=/)\.\.?(?=/|$)")
"MLflow cuts a URI at # and ?, and decodes %; pyarrow refuses empty names and follows dots."
_S3_PREFIX = re.compile(r"s3://[A-Za-z0-9._-]+/.*[^/]", re.DOTALL)


class Store:
    """A folder of the store. Methods take paths relative to it, with ``/`` between names."""

    def __init__(self, root: str | Path, storage: StorageParams | None = None) -> None:
        """Open ``root``; it need not exist yet.

        Raises:
            StoreError: ``root`` is neither a local path nor ``s3://bucket/prefix``.
        """
        self.storage = storage or StorageParams()
        text = str(root)
        self.is_local = not _SCHEME.match(text)
        self.uri = _local(text) if self.is_local else _prefix(text)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def name(self) -> str:
        """Last part of the folder's path."""
        return self.uri.rpartition("/")[2]

    @property
    def files(self) -> Files:
        """The file backend; one instance per process and setting."""
        return _files(self.is_local, self.storage)

    def sub(self, path: str) -> "Store":
        """Return the store of a sub-folder."""
        return Store(f"{self.uri}/{path}", self.storage)

    def as_option(self, name: str) -> str:
        """Return the options of a command line that name this folder, quoted for a shell.

        Args:
            name: option that takes the folder, such as ``--workdir``.
        """
        options = {
            name: self.uri,
            "--endpoint-url": self.storage.endpoint_url,
            "--region": self.storage.region,
        }
        return " ".join(f"{key} {quote(value)}" for key, value in options.items() if value)

    def uri_of(self, path: str) -> str:
        """Return the full URI or absolute path of ``path``, for messages and records."""
        return f"{self.uri}/{path}" if path else self.uri

    def native_path(self, path: str = "") -> str:
        """Return ``path`` as the file system addresses it: an absolute path, or ``bucket/key``.

        :attr:`files` and the file systems of pyarrow take this form.
        """
        return self.uri_of(path).removeprefix(_S3)

    def exists(self, path: str) -> bool:
        """Return whether a committed file or a folder exists at ``path``."""
        with self._naming(path):
            return self.files.entry(self.native_path(path)) is not None

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, or None if it does not exist."""
        with self._naming(path):
            entry = self.files.entry(self.native_path(path))
        return None if entry is None else entry.bytes

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of the committed files in ``folder`` that end in ``suffix``."""
        with self._naming(folder):
            found = self.files.children(self.native_path(folder))
        return sorted(e.name for e in found if not e.is_folder and e.name.endswith(suffix))

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders in ``folder``."""
        with self._naming(folder):
            return sorted(
                e.name for e in self.files.children(self.native_path(folder)) if e.is_folder
            )

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield (path, size in bytes) of every committed file below ``folder``, in sorted order."""
        with self._naming(folder):
            found = sorted(self.files.children(self.native_path(folder)), key=lambda e: e.name)
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_folder:
                yield from self.walk(path)
            else:
                yield path, entry.bytes

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            StoreError: the file is missing or cannot be read.
        """
        with self._naming(path):
            found = self.files.read_version(self.native_path(path))
        if found is None:
            raise StoreError(f"{self.uri_of(path)}: no such file")
        return found[0]

    def read_json(self, path: str, kinds: Mapping[str, Kind]) -> dict[str, Any]:
        """Return the JSON object in ``path``; ``kinds`` are its keys with types of their values.

        Raises:
            ManifestError: the file is damaged: it holds no such object.
            StoreError: the file is missing or cannot be read.
        """
        return object_of(self.read(path), self.uri_of(path), kinds)

    def read_json_list(self, path: str, kinds: Kind | Mapping[str, Kind]) -> list[Any]:
        """Return the JSON list in ``path``; ``kinds`` is the type of its items, or of their keys.

        Raises:
            ManifestError: the file is damaged: it holds no such list.
            StoreError: the file is missing or cannot be read.
        """
        return list_of(self.read(path), self.uri_of(path), kinds)

    def open(self, path: str) -> "pa.NativeFile":
        """Open a file for reading with random access.

        Raises:
            StoreError: the file is missing or cannot be opened.
        """
        with self._naming(path):
            return self.files.open(self.native_path(path))

    @contextmanager
    def write(self, path: str) -> Iterator[Digesting]:
        """Open ``path`` for an atomic, durable write; nothing appears if the block raises.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._naming(path), self.files.writing(self.native_path(path)) as file:
            yield Digesting(file)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write ``data`` to ``path``, atomically and durably."""
        with self.write(path) as file:
            file.write(data)

    def write_file(self, path: str, source: Path) -> Digesting:
        """Copy a local file to ``path``, atomically and durably."""
        with self.write(path) as file, source.open("rb") as opened:
            shutil.copyfileobj(opened, file, _BLOCK_BYTES)
        return file

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """Return a small file's content and version, or None if it does not exist."""
        with self._naming(path):
            return self.files.read_version(self.native_path(path))

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write ``data`` if the file still has ``version``, where None means that it is absent.

        Returns the new version, or None if another writer was first. Of two writers that saw the
        same version one succeeds, provided that their data differ: after a lost response the retry
        finds its own data, which counts as success.
        """
        with self._naming(path):
            written = self.files.write_if(self.native_path(path), data, version)
            if written is None:
                found = self.files.read_version(self.native_path(path))
                written = found[1] if found is not None and found[0] == data else None
        return written

    def size_and_sha256(self, path: str) -> tuple[int, str]:
        """Return a file's size in bytes and its SHA-256."""
        digest, size = hashlib.sha256(), 0
        with self._naming(path), self.files.open(self.native_path(path)) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return size, digest.hexdigest()

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything in it; do nothing if it does not exist."""
        with self._naming(path):
            self.files.remove(self.native_path(path))

    def file_system(self) -> "fs.FileSystem":
        """Return a pyarrow file system, which takes paths from :meth:`native_path`."""
        if self.is_local:
            from pyarrow import fs

            return fs.LocalFileSystem()
        from orchestration.storage.s3_files import file_system

        return file_system(self.storage)

    def fetch(self, path: str) -> Path:
        """Return a local copy of a committed file; in a local store, the file itself.

        A file is copied once per process, as a committed file does not change.

        Raises:
            StoreError: the file cannot be read.
        """
        if self.is_local:
            return Path(self.native_path(path))
        copy = _copies() / hashlib.sha256(self.uri.encode()).hexdigest()[:16] / path
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f"{copy.name}.partial")
            with (
                self._naming(path),
                self.files.open(self.native_path(path)) as file,
                partial.open("wb") as to,
            ):
                shutil.copyfileobj(file, to, _BLOCK_BYTES)
            partial.rename(copy)
        return copy

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Turn an OSError into a StoreError that names the object."""
        try:
            yield
        except OSError as error:
            if isinstance(error, NotADirectoryError | FileExistsError):
                for folder in (Path(self.uri), *Path(self.uri).parents):
                    if folder.is_file():
                        raise StoreError(f"{folder} is a file, not a folder") from None
            raise StoreError(f"{self.uri_of(path)}: {error.strerror or error}") from error


def _local(text: str) -> str:
    """Return the absolute path of a local folder."""
    if not text.strip():
        raise StoreError("the workdir is empty; give a path or s3://bucket/prefix")
    if "\0" in text:
        raise StoreError(f"{text!r}: no path holds U+0000; give a path or s3://bucket/prefix")
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        raise StoreError(f"{text}: no home is known for {text.partition('/')[0]}") from None


def _prefix(text: str) -> str:
    """Return the URI of a prefix of a bucket, without a slash at its end."""
    text = text.rstrip("/")
    if not _S3_PREFIX.fullmatch(text):
        raise StoreError(f"{text!r}: a workdir is a local path or s3://bucket/prefix")
    if found := _UNFIT_IN_PREFIX.search(text.removeprefix(_S3)):
        raise StoreError(
            f"{text!r}: {found[0]!r} in a prefix is not the same to every program that reads URIs; "
            "choose a prefix without it"
        )
    return text


@lru_cache
def _files(is_local: bool, storage: StorageParams) -> Files:
    if is_local:
        return LocalFiles()
    from orchestration.storage.s3_files import ObjectFiles  # boto3 imports slowly

    return ObjectFiles(storage)


@lru_cache
def _copies() -> Path:
    folder = tempfile.mkdtemp(prefix="beit3-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
