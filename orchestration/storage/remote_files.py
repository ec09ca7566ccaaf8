"""Files that a recipe names by URI (``http(s)://``, ``s3://``, ``hf://``): versions, local copies.

A remote file enters a fingerprint by its size and the time of its last change, else by its ETag:
reading gigabytes before every plan would cost minutes. Of an HTTP server the time comes first,
because servers behind one address often agree on it and not on ETags; of S3 the ETag. A stage
copies the file into its own folder once. Credentials and endpoint of S3 come from the environment
(``AWS_ENDPOINT_URL`` and others).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from http.client import HTTPException
from typing import IO, Any, Final, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from orchestration.errors import RecipeError, StageError
from orchestration.params import StageParams, external_files
from orchestration.storage.files import StorageParams
from orchestration.storage.hub_files import open_hub_file
from orchestration.storage.store import Store

P = TypeVar("P", bound=StageParams)

_FOLDER: Final = "external"
_SCHEMES: Final = ("http", "https", "s3", "hf")
_TIMEOUT_S: Final = 60
_BLOCK_BYTES: Final = 1 << 20
_RETRIED_STATUSES: Final = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Version:
    """The version of a file, as its server reports it."""

    bytes: int
    "Size of the file."
    tag: str
    "Time of the last change, or ETag without its mark for weak ones (RFC 9110, 8.8.3.2)."

    def __str__(self) -> str:
        return f"{self.bytes} bytes, {self.tag}"


@lru_cache
def version_of(uri: str) -> Version:
    """Return the version of a remote file.

    The server is asked once per process, so that a fingerprint cannot change during a run.

    Raises:
        RecipeError: the file cannot be read, or the server reports no version.
    """
    try:
        return _ask(uri)
    except OSError as error:
        raise RecipeError(f"{uri}: {_words(error)}") from None


@lru_cache
def head_of(uri: str, num_bytes: int) -> bytes:
    """Return the first bytes of a remote file; the server is asked once per process.

    Raises:
        RecipeError: the file cannot be read.
    """
    try:
        return _head(uri, num_bytes)
    except (OSError, _BrokenOffError) as error:
        raise RecipeError(f"{uri}: {_words(error)}") from None


def versions_of(params: StageParams) -> dict[str, Version]:
    """Return the versions of the files that ``params`` names by URI, by URI.

    Raises:
        RecipeError: a file cannot be read, or its server reports no version.
    """
    return {uri: version_of(uri) for uri in _remote(params).values()}


def copy_files(planned: Mapping[str, Version], folder: Store) -> None:
    """Copy remote files into ``external/`` of a stage's folder; existing copies are kept.

    Args:
        planned: versions by URI when the workflow was planned, from :func:`versions_of`.
        folder: folder of the stage.

    Raises:
        StageError: a file cannot be read, or has changed since the workflow was planned.
    """
    for uri, version in planned.items():
        if not folder.exists(_path(uri)):
            try:
                _copy(uri, version, folder)
            except (OSError, _BrokenOffError) as error:
                raise StageError(f"{uri}: {_words(error)}") from error


def with_local_files(params: P, folder: Store) -> P:
    """Return ``params`` with each URI replaced by the path of its copy by :func:`copy_files`."""
    local = {name: str(folder.fetch(_path(uri))) for name, uri in _remote(params).items()}
    return params.model_copy(update=local) if local else params


def remove_copies(folder: Store) -> None:
    """Remove every copy of a remote file from a stage's folder."""
    folder.remove(_FOLDER)


def _remote(params: StageParams) -> dict[str, str]:
    """Return the URIs of external files by field."""
    return {file.key: file.location for file in external_files(params) if file.is_remote}


class _BrokenOffError(Exception):
    """A download ended early. Not an OSError, as that would be taken for a failed write."""


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _BrokenOffError):
        return True
    if isinstance(error, HTTPError):
        return error.code in _RETRIED_STATUSES
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


_retried = retry(
    retry=retry_if_exception(_is_transient),
    stop=stop_after_attempt(4),
    wait=wait_exponential_jitter(initial=0.5, max=10),
    reraise=True,
)


@_retried
def _ask(uri: str) -> Version:
    with _opened(uri) as (version, _):
        return version


@_retried
def _head(uri: str, num_bytes: int) -> bytes:
    found = b""
    with _opened(uri) as (version, body):
        for block in _blocks(body):
            found += block
            if len(found) >= num_bytes:
                return found[:num_bytes]
    if len(found) < min(num_bytes, version.bytes):
        raise _BrokenOffError(f"ended after {len(found)} of {version.bytes} bytes")
    return found


@_retried
def _copy(uri: str, planned: Version, folder: Store) -> None:
    with _opened(uri) as (version, body):
        if version != planned:
            raise StageError(
                f"{uri}: changed since the workflow was planned ({planned} is now {version}); run "
                "it again. If the server reports another version each time, download the file and "
                "give its path"
            )
        with folder.write(_path(uri)) as file:
            for block in _blocks(body):
                file.write(block)
            if file.bytes != version.bytes:
                raise _BrokenOffError(f"ended after {file.bytes} of {version.bytes} bytes")


def _blocks(body: IO[bytes]) -> Iterator[bytes]:
    done = 0
    try:
        while block := body.read(_BLOCK_BYTES):
            done += len(block)
            yield block
    except Exception as error:  # urllib and boto3 raise various exceptions here
        raise _BrokenOffError(f"broke off after {done} bytes: {error!r}") from error


@contextmanager
def _opened(uri: str) -> Iterator[tuple[Version, IO[bytes]]]:
    try:
        opened = _OPEN.get(urlsplit(uri).scheme, _open_http)(uri)
    except HTTPException as error:
        raise OSError(f"invalid HTTP response: {error!r}") from error
    try:
        yield opened
    finally:
        opened[1].close()


def _open_http(uri: str) -> tuple[Version, IO[bytes]]:
    # A GET whose body is not read: signed URLs and some servers refuse a HEAD.
    request = Request(_sendable(uri), headers={"Accept-Encoding": "identity"})
    answer = urlopen(request, timeout=_TIMEOUT_S)  # check() has refused file: and the like
    size = answer.headers.get("Content-Length")
    tag = _tag(answer.headers)
    if size is None or tag is None:
        answer.close()
        raise RecipeError(
            f"{uri}: the server sends no Content-Length, or neither ETag nor Last-Modified, so a "
            "change could not be detected; download the file and give its path"
        )
    return Version(int(size), tag), answer


def _sendable(uri: str) -> str:
    """Return a URI with what may not be sent percent-encoded; what is encoded stays as it is."""
    parts = urlsplit(uri)
    try:
        host = parts.netloc.encode("ascii" if parts.netloc.isascii() else "idna").decode()
    except UnicodeError as error:
        raise OSError(f"not a host name: {parts.netloc} ({error})") from None
    return quote(parts._replace(netloc=host).geturl(), safe="%/:=&?~#+!$,;'@()*[]")


def _tag(headers: Message) -> str | None:
    """Return what identifies a version of a file besides its size, or None."""
    etag, changed = headers.get("ETag"), headers.get("Last-Modified")
    # A server that makes its answers up on the spot reports the present time.
    if changed is not None and (etag is None or changed != headers.get("Date")):
        return changed
    return etag and etag.strip().removeprefix("W/")


def _open_s3(uri: str) -> tuple[Version, IO[bytes]]:
    from orchestration.storage.s3_access import as_os_error
    from orchestration.storage.s3_files import client

    bucket, _, key = uri.removeprefix("s3://").partition("/")  # a key may hold "#" and "?"
    with as_os_error():
        found: dict[str, Any] = client(StorageParams()).get_object(Bucket=bucket, Key=key)
    return Version(found["ContentLength"], found["ETag"]), found["Body"]


def _open_hub(uri: str) -> tuple[Version, IO[bytes]]:
    size, tag, body = open_hub_file(uri, _TIMEOUT_S)
    return Version(size, tag), body


_OPEN: Final[Mapping[str, Callable[[str], tuple[Version, IO[bytes]]]]] = {
    "s3": _open_s3,
    "hf": _open_hub,
}


def check(uri: str) -> None:
    """Check that a remote file can be read.

    Raises:
        RecipeError: the file cannot be read, its server reports no version, or its scheme is not
            supported.
    """
    if urlsplit(uri).scheme not in _SCHEMES:
        raise RecipeError(
            f"{uri}: unsupported scheme; give a file by path or as one of {', '.join(_SCHEMES)}"
        )
    version_of(uri)


def _path(uri: str) -> str:
    name = unquote(urlsplit(uri).path).rpartition("/")[2] or "file"
    return f"{_FOLDER}/{hashlib.sha256(uri.encode()).hexdigest()[:12]}-{name}"


def _words(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error)
