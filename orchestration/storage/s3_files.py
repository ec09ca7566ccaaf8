"""Files in an S3-compatible object store: reads and lists through pyarrow, writes through boto3.

pyarrow completes an upload when a stream is closed, also where the writer failed half-way; boto3
aborts it, and has the conditional puts that a lock needs. An object appears whole or not at all.
Checksums are asked for only where the service demands them: many compatible stores know no other.
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
    """See :class:`orchestration.storage.files.Files`; paths are ``bucket/key``."""

    def __init__(self, params: StorageParams) -> None:
        self.params = params
        self.fs = file_system(params)
        self.client = client(params)

    def entry(self, path: str) -> Entry | None:
        """Describe an object or a prefix; None if there is none."""
        info = self.fs.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            return None
        return Entry(info.base_name, info.type == fs.FileType.Directory, info.size or 0)

    def children(self, folder: str) -> list[Entry]:
        """List a prefix, in no order; empty if there is none."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        return [
            Entry(i.base_name, i.type == fs.FileType.Directory, i.size or 0)
            for i in self.fs.get_file_info(selector)
        ]

    def open(self, path: str) -> pa.NativeFile:
        """Open for reads at any place."""
        return self.fs.open_input_file(path)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Open for an atomic write: collected here, uploaded when the block has ended."""
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
        """Return a small object's bytes and ETag; None if there is none."""
        bucket, key = _parts(path)
        try:
            with as_os_error():
                found = self.client.get_object(Bucket=bucket, Key=key)
                return found["Body"].read(), found["ETag"]
        except FileNotFoundError:
            return None

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write if the object still has ``version`` (None: is absent); return the new, or None."""
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
        """Remove an object, or all objects under a prefix; nothing if there is none."""
        info = self.fs.get_file_info(path)
        if info.type == fs.FileType.Directory:
            self.fs.delete_dir(path)
        bucket, key = _parts(path)
        with as_os_error():
            self.client.delete_object(Bucket=bucket, Key=key)

    def stale_uploads(self, folder: str, older_than: timedelta) -> list[tuple[str, str]]:
        """Return (key, upload id) of the multipart uploads below a prefix that nobody ends."""
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
        """Abort one of :meth:`stale_uploads`: its parts cost money and nobody sees them."""
        with as_os_error():
            self.client.abort_multipart_upload(
                Bucket=_parts(folder)[0], Key=key, UploadId=upload_id
            )


def client(params: StorageParams) -> Any:
    """Return a boto3 client."""
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
    """Return a pyarrow file system on the same store."""
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
    """boto3 closes what it has uploaded; the temporary file is closed by who made it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Nothing."""


@contextmanager
def as_os_error() -> Iterator[None]:
    """Turn errors of boto3 into those of an operating system."""
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
    told = error.response["Error"]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return f"{told.get('Code')} {status}: {told.get('Message')}"


def _parts(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key
