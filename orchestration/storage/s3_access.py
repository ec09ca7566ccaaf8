"""How an object store is reached: endpoint, region, addressing and credentials, for both libraries.

boto3 and pyarrow each have rules of their own for what a recipe leaves open: pyarrow follows no
endpoint of the environment or of a profile, assumes no role of a profile, and boto3 reads no
``AWS_REGION``. Here botocore alone resolves all of it, and pyarrow is given the result. Credentials
that expire are renewed by botocore; pyarrow's file system is made anew with each renewal.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.utils import get_environ_proxies
from pyarrow import fs

from orchestration.storage.files import StorageParams, checked_endpoint

_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_DEFAULT_REGION: Final = "us-east-1"
_ABSENT: Final = ("NoSuchKey", "404")
_PROBE: Final = "bucket-of-no-name"


class S3Access:
    """Access to one object store with what a recipe, the environment and a profile say.

    ``endpoint`` is the URL that both libraries ask, ``region`` the one that both sign with.
    """

    def __init__(self, params: StorageParams) -> None:
        """Resolve everything except the credentials; nothing is sent.

        Raises:
            OSError: an endpoint, a profile or a setting of the environment cannot be used.
        """
        self._params = params
        with as_os_error():
            self._session = boto3.session.Session()
            self.region: str = (
                params.region
                or os.environ.get("AWS_REGION")
                or self._session.region_name
                or _DEFAULT_REGION
            )
            self.endpoint, self._is_virtual = self._address()
        self._credentials: Any = None
        self._made: tuple[Any, fs.S3FileSystem] | None = None

    def client(self, **options: Any) -> Any:
        """Return a boto3 client, which renews its credentials itself.

        Checksums are sent only if the service requires them, as many compatible stores do not
        support the optional ones.
        """
        params = self._params
        return self._session.client(
            "s3",
            endpoint_url=params.endpoint_url,
            region_name=self.region,
            config=Config(
                connect_timeout=params.connect_timeout_s,
                read_timeout=params.read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": params.max_attempts},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                signature_version="s3v4",
            ),
            **options,
        )

    def file_system(self) -> fs.S3FileSystem:
        """Return pyarrow's file system with the credentials that are valid now.

        Raises:
            OSError: there are no credentials, or they cannot be renewed.
        """
        with as_os_error():
            if self._credentials is None:
                self._credentials = self._session.get_credentials()
            if self._credentials is None:
                raise OSError(
                    "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                    "a profile (AWS_PROFILE) or a role"
                )
            now = self._credentials.get_frozen_credentials()  # renews them if they expire soon
        if self._made is None or self._made[0] != now:
            self._made = now, self._file_system(now)
        return self._made[1]

    def words(self) -> str:
        """Return endpoint, region, addressing and the origin of the credentials, for a person."""
        self.file_system()
        style = "virtual-hosted" if self._is_virtual else "path"
        return (
            f"{self.endpoint}, region {self.region}, {style}-style addresses, credentials from "
            f"{self._credentials.method}"
        )

    def _address(self) -> tuple[str, bool]:
        """Return the endpoint's URL, and whether a bucket's name is put before its host."""
        try:
            client = self.client(aws_access_key_id="none", aws_secret_access_key="none")
        except BotoCoreError:
            raise
        except AttributeError as error:  # a section of the configuration file is a plain value
            raise OSError(f"the AWS configuration file cannot be used ({error})") from None
        except ValueError as error:  # "Invalid endpoint: …"
            _refuse(str(error).rpartition("endpoint: ")[2])
            raise OSError(str(error)) from None
        _refuse(str(client.meta.endpoint_url))
        url = urlsplit(_url_of_bucket(client))
        host = url.netloc.removeprefix(f"{_PROBE}.")
        return f"{url.scheme}://{host}", host != url.netloc

    def _file_system(self, credentials: Any) -> fs.S3FileSystem:
        params, url = self._params, urlsplit(self.endpoint)
        proxy = get_environ_proxies(self.endpoint).get(url.scheme)
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        if proxy and urlsplit(proxy).scheme not in ("http", "https"):
            raise OSError(
                f"the environment's proxy for {self.endpoint} is one of {urlsplit(proxy).scheme}, "
                "which pyarrow cannot use for S3; give an http proxy, or add the host to NO_PROXY"
            )
        return fs.S3FileSystem(
            access_key=credentials.access_key,
            secret_key=credentials.secret_key,
            session_token=credentials.token,
            region=self.region,
            scheme=url.scheme,
            endpoint_override=url.netloc,
            force_virtual_addressing=self._is_virtual,
            proxy_options=proxy,
            tls_ca_file_path=self._session._session.get_config_variable("ca_bundle"),
            connect_timeout=params.connect_timeout_s,
            request_timeout=params.read_timeout_s,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=params.max_attempts),
        )


def _url_of_bucket(client: Any) -> str:
    """Return the URL of a request for a bucket, which botocore's settings decide; nothing is sent.

    ``client.meta.endpoint_url`` is another one with FIPS and dual-stack endpoints.
    """
    asked: list[str] = []

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        asked.append(request.url)
        return AWSResponse(request.url, 200, {}, SimpleNamespace(stream=lambda: ()))

    client.meta.events.register("before-send.s3", answer)
    client.head_bucket(Bucket=_PROBE)
    return asked[0]


def _refuse(endpoint: str) -> None:
    """Raise OSError for an endpoint of the environment or a profile that cannot be used."""
    try:
        checked_endpoint(endpoint)
    except ValueError as error:
        names = [name for name in _ENDPOINT_VARIABLES if os.environ.get(name) == endpoint]
        raise OSError(f"endpoint of {(*names, 'the AWS profile')[0]}: {error}") from None


@contextmanager
def as_os_error() -> Iterator[None]:
    """Turn errors of boto3 into OSError."""
    try:
        yield
    except ClientError as error:
        kind = FileNotFoundError if error.response["Error"]["Code"] in _ABSENT else OSError
        raise kind(client_error_words(error)) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error
    except boto3.exceptions.S3UploadFailedError as error:
        raise OSError(str(error)) from error


def client_error_words(error: ClientError) -> str:
    """Return the code, status and message of a service's refusal."""
    details = error.response["Error"]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return f"{details.get('Code')} {status}: {details.get('Message')}"
