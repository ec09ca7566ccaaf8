"""The file backend of an S3-compatible object store.

pyarrow reads and lists; boto3 writes. pyarrow completes an upload when a stream is closed, even if
the writer failed; boto3 aborts it, and has the conditional puts that a lock needs. An object
appears complete or not at all. Checksums are sent only if the service requires them, as many
compatible stores do not support the optional ones.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs

from orchestration.storage.files import Entry, StorageParams

_IN_MEMORY_BYTES = 16 << 20
_PART_BYTES = 64 << 20
_CHANGED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_ABSENT = ("NoSuchKey", "404")


class ObjectFiles:
    """Implements :class:`orchestration.storage.files.Files` for paths ``bucket/key``."""

    def __init__(self, params: StorageParams) -> None:
        self.params = params
        self.fs = file_system(params)
        self.client = client(params)

    def entry(self, path: str) -> Entry | None:
        """Return the entry of an object or prefix, or None if it does not exist."""
        info = self.fs.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            return None
        return Entry(info.base_name, info.type == fs.FileType.Directory, info.size or 0)

    def children(self, folder: str) -> list[Entry]:
        """Return the entries under a prefix in any order; empty if it does not exist."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        return [
            Entry(i.base_name, i.type == fs.FileType.Directory, i.size or 0)
            for i in self.fs.get_file_info(selector)
        ]

    def open(self, path: str) -> pa.NativeFile:
        """Open an object for reading with random access."""
        return self.fs.open_input_file(path)

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
            raise OSError(_words(error)) from error
        except BotoCoreError as error:
            raise OSError(str(error)) from error
        return str(put["ETag"])

    def remove(self, path: str) -> None:
        """Remove an object, or all objects under a prefix; do nothing if none exists."""
        info = self.fs.get_file_info(path)
        if info.type == fs.FileType.Directory:
            self.fs.delete_dir(path)
        bucket, key = _parts(path)
        with as_os_error():
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
    """Return a boto3 client for the store."""
    return boto3.client(
        "s3",
        endpoint_url=params.endpoint_url,
        region_name=params.region,
        config=Config(
            connect_timeout=params.connect_timeout_s,
            read_timeout=params.read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": params.max_attempts},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def file_system(params: StorageParams) -> fs.S3FileSystem:
    """Return a pyarrow file system for the store."""
    options: dict[str, Any] = {}
    if params.endpoint_url:
        url = urlsplit(params.endpoint_url)
        options = {"scheme": url.scheme, "endpoint_override": url.netloc}
    if params.region or params.endpoint_url:
        options["region"] = params.region or "us-east-1"
    return fs.S3FileSystem(
        connect_timeout=params.connect_timeout_s,
        request_timeout=params.read_timeout_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=params.max_attempts),
        **options,
    )


class _Unclosable:
    """A file whose ``close`` does nothing: boto3 closes a file that its owner still needs."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def as_os_error() -> Iterator[None]:
    """Turn errors of boto3 into OSError."""
    try:
        yield
    except ClientError as error:
        kind = FileNotFoundError if error.response["Error"]["Code"] in _ABSENT else OSError
        raise kind(_words(error)) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error
    except boto3.exceptions.S3UploadFailedError as error:
        raise OSError(str(error)) from error


def _words(error: ClientError) -> str:
    details = error.response["Error"]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return f"{details.get('Code')} {status}: {details.get('Message')}"


def _parts(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key
