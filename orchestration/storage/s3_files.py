"""The file backend of an S3-compatible object store.

pyarrow reads and lists; boto3 writes and removes. pyarrow completes an upload when a stream is
closed, even if the writer failed; boto3 aborts it, and has the conditional puts that a lock needs.
An object appears complete or not at all. :mod:`orchestration.storage.s3_access` tells both
libraries where the store is.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import pyarrow as pa
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs

from orchestration.storage.files import Entry, StorageParams
from orchestration.storage.s3_access import S3Access, as_os_error, client_error_words

_IN_MEMORY_BYTES = 16 << 20
_PART_BYTES = 64 << 20
_CHANGED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_ABSENT = ("NoSuchKey", "404")


class ObjectFiles:
    """Implements :class:`orchestration.storage.files.Files` for paths ``bucket/key``."""

    def __init__(self, params: StorageParams) -> None:
        self.params = params
        self.access = S3Access(params)
        self.client = self.access.client()
        self._buckets: set[str] = set()
        "Buckets that are known to exist."

    @property
    def arrow(self) -> fs.S3FileSystem:
        """pyarrow's file system with valid credentials, not to be kept."""
        return self.access.file_system()

    def entry(self, path: str) -> Entry | None:
        """Return the entry of an object or prefix, or None if it does not exist."""
        info = self.arrow.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            self._require_bucket(path)
            return None
        return Entry(info.base_name, info.type == fs.FileType.Directory, info.size or 0)

    def children(self, folder: str) -> list[Entry]:
        """Return the entries under a prefix in any order; empty if it does not exist."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        found = self.arrow.get_file_info(selector)
        if not found:
            self._require_bucket(folder)
        return [Entry(i.base_name, i.type == fs.FileType.Directory, i.size or 0) for i in found]

    def _require_bucket(self, path: str) -> None:
        """Raise OSError if a path's bucket does not exist: to pyarrow it is as if empty.

        A refusal of the question itself says nothing, since listing needs another permission.
        """
        bucket, _ = _parts(path)
        if bucket in self._buckets:
            return
        try:
            self.client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] in (*_ABSENT, "NoSuchBucket"):
                raise OSError(f"there is no bucket {bucket}; create it or mend the URI") from error
        except BotoCoreError as error:
            raise OSError(str(error)) from error
        self._buckets.add(bucket)

    def open(self, path: str) -> pa.NativeFile:
        """Open an object for reading with random access."""
        return self.arrow.open_input_file(path)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Open an object for an atomic write: buffered locally, uploaded when the block ends."""
        bucket, key = _parts(path)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            yield file
            file.seek(0)
            config = TransferConfig(
                multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES
            )
            with as_os_error():
                self.client.upload_fileobj(_Unclosable(file), bucket, key, Config=config)

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """Return a small object's content and ETag, or None if it does not exist."""
        bucket, key = _parts(path)
        try:
            with as_os_error():
                found = self.client.get_object(Bucket=bucket, Key=key)
                return found["Body"].read(), found["ETag"]
        except FileNotFoundError:
            return None

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write ``data`` if the object still has ``version``, where None means that it is absent.

        Returns the new version, or None if nothing was written.
        """
        bucket, key = _parts(path)
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            put = self.client.put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in (*_CHANGED, *_ABSENT):
                return None
            raise OSError(client_error_words(error)) from error
        except BotoCoreError as error:
            raise OSError(str(error)) from error
        return str(put["ETag"])

    def remove(self, path: str) -> None:
        """Remove an object, or all objects under a prefix; do nothing if none exists.

        Nothing is written: pyarrow would put an empty object in place of the parent folder, which
        needs the right to write.
        """
        bucket, key = _parts(path)
        with as_os_error():
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=f"{key}/"):
                if found := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
                    answer = self.client.delete_objects(
                        Bucket=bucket, Delete={"Objects": found, "Quiet": True}
                    )
                    for refused in answer.get("Errors", [])[:1]:
                        raise OSError(
                            f"{refused.get('Key')} is not removed: {refused.get('Code')}: "
                            f"{refused.get('Message')}"
                        )
            self.client.delete_object(Bucket=bucket, Key=key)

    def stale_uploads(self, folder: str, older_than: timedelta) -> list[tuple[str, str]]:
        """Return (key, upload id) of the unfinished multipart uploads below a prefix."""
        bucket, prefix = _parts(folder)
        before = datetime.now(UTC) - older_than
        with as_os_error():
            pages = self.client.get_paginator("list_multipart_uploads")
            return [
                (upload["Key"], upload["UploadId"])
                for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/")
                for upload in page.get("Uploads", [])
                if upload["Initiated"] < before
            ]

    def abort_upload(self, folder: str, key: str, upload_id: str) -> None:
        """Abort an upload from :meth:`stale_uploads`; its invisible parts cost storage."""
        with as_os_error():
            self.client.abort_multipart_upload(
                Bucket=_parts(folder)[0], Key=key, UploadId=upload_id
            )


def client(params: StorageParams) -> Any:
    """Return a boto3 client for the store; see :meth:`S3Access.client`."""
    with as_os_error():
        return S3Access(params).client()


def file_system(params: StorageParams) -> fs.FileSystem:
    """Return a pyarrow file system for the store that can be kept: it renews its credentials."""
    return fs.PyFileSystem(_RenewedFileSystem(params))


class _RenewedFileSystem(fs.FileSystemHandler):
    """Passes each call to a file system with valid credentials; pickles without them."""

    def __init__(self, params: StorageParams) -> None:
        self.files = ObjectFiles(params)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RenewedFileSystem) and other.files.params == self.files.params

    def __hash__(self) -> int:
        return hash(self.files.params)

    def __reduce__(self) -> Any:
        return _RenewedFileSystem, (self.files.params,)

    def get_type_name(self) -> str:
        return "s3"

    def normalize_path(self, path: str) -> str:
        return str(self.files.arrow.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> Any:
        return self.files.arrow.get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        return self.files.arrow.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing: a prefix needs no object of its own."""

    def delete_dir(self, path: str) -> None:
        self.files.remove(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = True) -> None:
        self.files.remove(path)

    def delete_root_dir_contents(self) -> None:
        raise OSError("the store does not delete all of its buckets")

    def delete_file(self, path: str) -> None:
        self.files.remove(path)

    def move(self, source: str, to: str) -> None:
        self.files.arrow.move(source, to)

    def copy_file(self, source: str, to: str) -> None:
        self.files.arrow.copy_file(source, to)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.files.arrow.open_input_stream(path, compression=None)

    def open_input_file(self, path: str) -> pa.NativeFile:
        return self.files.arrow.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self.files.arrow.open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise OSError("objects cannot be appended to")


class _Unclosable:
    """A file whose ``close`` does nothing: boto3 closes a file that its owner still needs."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Do nothing."""


def _parts(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key
