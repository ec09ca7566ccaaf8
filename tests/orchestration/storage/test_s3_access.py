"""boto3 and pyarrow reach one store with one endpoint, one region and the same credentials.

moto checks signatures, keys and policies here (``/moto-api/reset-auth``), and its STS gives the
credentials of roles, so a library with rules of its own is refused.
"""

import json
import os
import pickle
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from pyarrow import fs
from pydantic import ValidationError

from orchestration.errors import RecipeError, StoreError
from orchestration.gc import abort_stale_uploads
from orchestration.storage.files import StorageParams, checked_endpoint
from orchestration.storage.s3_access import S3Access
from orchestration.storage.store import Store, _files
from pipelines.commands.workdir import open_workdir
from tests.s3 import BUCKET, serving_s3

ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def policy(*statements: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


class Guarded:
    """A server that refuses what no policy allows, and what the administrator needs for it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.session = boto3.session.Session("test", "test", region_name="us-east-1")
        self.iam = self.session.client("iam", endpoint_url=endpoint)

    def user(self, *statements: dict) -> dict[str, str]:
        """Return the key of a new user with a policy."""
        name = uuid.uuid4().hex
        self.iam.create_user(UserName=name)
        self.iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy(*statements))
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        return {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"], "user": name}

    def role(self) -> str:
        """Return the address of a role that everybody may assume and that may do everything."""
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
        name = uuid.uuid4().hex
        arn = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"][
            "Arn"
        ]
        self.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(ALL))
        return str(arn)

    def guard(self, free: int = 0) -> None:
        """Check every request from now on, or after some."""
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth",
            data=str(free).encode(),
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request).close()


@pytest.fixture
def nothing_set(monkeypatch, tmp_path) -> Iterator[None]:
    """No variable, no profile and no credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    _files.cache_clear()
    yield
    _files.cache_clear()


@pytest.fixture
def guarded(nothing_set) -> Iterator[Guarded]:
    with serving_s3() as endpoint:
        yield Guarded(endpoint)


def use(store: Store) -> None:
    """Write with boto3, read and list with both libraries, and remove."""
    store.write_bytes("a/file", b"content")
    assert store.read("a/file") == b"content"
    with store.open("a/file") as file:
        assert file.read() == b"content"
    assert list(store.walk()) == [("a/file", 7)]
    kept = pickle.loads(pickle.dumps(store.file_system()))
    assert kept.open_input_file(store.native_path("a/file")).read() == b"content"
    store.remove("")
    assert list(store.walk()) == []


@pytest.mark.parametrize("where", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "profile", "recipe"])
def test_both_libraries_follow_an_endpoint_wherever_it_is_given(guarded, monkeypatch, where):
    key = guarded.user(ALL)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["secret"])
    params = StorageParams()
    if where == "profile":
        Path(os.environ["AWS_CONFIG_FILE"]).write_text(
            f"[default]\nregion = us-east-1\nendpoint_url = {guarded.endpoint}\n"
        )
    elif where == "recipe":
        params = StorageParams(endpoint_url=guarded.endpoint)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    else:
        monkeypatch.setenv(where, guarded.endpoint)
    guarded.guard()
    use(Store(f"s3://{BUCKET}/x", params))


def test_both_libraries_assume_the_role_of_a_profile(guarded, monkeypatch):
    key, arn = guarded.user(ALL), guarded.role()
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(
        f"[profile base]\naws_access_key_id = {key['id']}\n"
        f"aws_secret_access_key = {key['secret']}\n"
        f"[profile trainer]\nrole_arn = {arn}\nsource_profile = base\n"
        f"region = us-east-1\nendpoint_url = {guarded.endpoint}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "trainer")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", guarded.endpoint)
    guarded.guard()
    use(Store(f"s3://{BUCKET}/x"))
    assert "credentials from assume-role" in S3Access(StorageParams()).words()


def test_credentials_that_expire_are_renewed_for_both_libraries(guarded, tmp_path):
    keys = tmp_path / "keys.json"

    def hand_out(key: dict[str, str]) -> None:
        soon = datetime.now(UTC) + timedelta(minutes=5)  # botocore renews ten minutes before
        keys.write_text(
            json.dumps({
                "Version": 1, "AccessKeyId": key["id"], "SecretAccessKey": key["secret"],
                "Expiration": soon.isoformat(),
            })
        )  # fmt: skip

    program = f"{sys.executable} -c \"print(open('{keys}').read())\""
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(
        f"[default]\nregion = us-east-1\ncredential_process = {program}\n"
    )
    first, second = guarded.user(ALL), guarded.user(ALL)
    hand_out(first)
    guarded.guard()
    store = Store(f"s3://{BUCKET}/x", StorageParams(endpoint_url=guarded.endpoint, max_attempts=1))
    kept = store.file_system()
    store.write_bytes("a", b"1")
    assert kept.open_input_file(store.native_path("a")).read() == b"1"
    hand_out(second)
    guarded.guard(1)
    guarded.iam.delete_access_key(UserName=first["user"], AccessKeyId=first["id"])
    assert kept.open_input_file(store.native_path("a")).read() == b"1"
    use(store.sub("other"))


def test_removing_needs_only_the_right_to_list_and_to_remove(guarded, monkeypatch):
    objects = guarded.session.client("s3", endpoint_url=guarded.endpoint)
    for i in range(1100):  # more than one listing gives
        objects.put_object(Bucket=BUCKET, Key=f"x/stage/f/{i}", Body=b"")
    objects.put_object(Bucket=BUCKET, Key="x/stage/f", Body=b"")
    objects.put_object(Bucket=BUCKET, Key="x/stage/fg", Body=b"")
    rights = ["s3:ListBucket", "s3:DeleteObject"]
    key = guarded.user({"Effect": "Allow", "Action": rights, "Resource": "*"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["secret"])
    store = Store(f"s3://{BUCKET}/x", StorageParams(endpoint_url=guarded.endpoint))
    guarded.guard()
    store.remove("stage/f")
    store.file_system().delete_dir(store.native_path("stage/nothing"))
    with pytest.raises(StoreError, match="stage/new"):
        store.write_bytes("stage/new", b"")
    with pytest.raises(StoreError, match="unfinished uploads were not all aborted"):
        abort_stale_uploads(store)
    guarded.guard(10)
    found = objects.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [item["Key"] for item in found] == ["x/stage/fg"]


def test_a_prefix_gets_no_object_of_its_own(s3_endpoint):
    store = Store(f"s3://{BUCKET}/{uuid.uuid4().hex}", StorageParams(endpoint_url=s3_endpoint))
    system = store.file_system()
    system.create_dir(store.native_path("run/checkpoint"))
    store.write_bytes("run/checkpoint/a", b"1")
    system.delete_dir(store.native_path("run/checkpoint"))
    assert list(store.walk()) == []
    info = system.get_file_info(store.native_path("run"))
    assert info.type == fs.FileType.NotFound


def test_a_file_system_pickles_without_credentials(nothing_set, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVISIBLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    system = Store(f"s3://{BUCKET}/x").file_system()
    assert b"hidden-secret" not in pickle.dumps(system)
    assert pickle.loads(pickle.dumps(system)) == system


def test_no_credentials_are_one_sentence(nothing_set):
    store = Store(f"s3://{BUCKET}/x", StorageParams(endpoint_url="http://127.0.0.1:9"))
    for use_it in (lambda: store.exists("a"), lambda: store.read("a")):
        with pytest.raises(StoreError, match=r"(?i)credentials"):
            use_it()
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID"):
        store.open("a")


ENDPOINTS = [
    ("localhost:9000", "write http://localhost:9000"),
    ("127.0.0.1:9000", "write http://127.0.0.1:9000"),
    ("minio.example.org", "write https://minio.example.org"),
    ("http:/minio:9000", "write https://minio:9000"),
    ("ftp://minio", "write https://minio"),
    ("https://minio/s3", "write https://minio"),
    ("https://minio:9000/bucket/", "write https://minio:9000"),
    ("https://minio?x=1", "write https://minio"),
    ("https://minio:port", "not a URL"),
    ("https://", "no scheme"),
    ("https://minio:0", "a port above 0; write https://host:port"),
    ("https://minio%2e", "not a URL of a host"),
    ("https://münio", "not a URL of a host"),
]


@pytest.mark.parametrize(("endpoint", "words"), ENDPOINTS)
def test_an_endpoint_that_pyarrow_cannot_follow_is_refused_where_it_is_read(
    nothing_set, monkeypatch, endpoint, words
):
    with pytest.raises(ValidationError, match=words):
        StorageParams(endpoint_url=endpoint)
    with pytest.raises(RecipeError, match=f"--endpoint-url: .*{words}"):
        open_workdir(f"s3://{BUCKET}/x", endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(OSError, match=f"endpoint of AWS_ENDPOINT_URL: .*{words}"):
        S3Access(StorageParams())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(f"[default]\nendpoint_url = {endpoint}\n")
    with pytest.raises(StoreError, match=f"endpoint of the AWS profile: .*{words}"):
        Store(f"s3://{BUCKET}/x").exists("a")


def test_a_password_in_an_endpoint_is_not_repeated():
    with pytest.raises(ValidationError) as error:
        StorageParams(endpoint_url="https://user:hidden@minio:9000")
    assert "hidden" not in error.value.errors()[0]["msg"]


@pytest.mark.parametrize("url", ["https://h:9/", "HTTPS://H:9", "https://h:9"])
def test_an_endpoint_is_spelled_one_way(url):
    assert checked_endpoint(url) == "https://h:9"


@pytest.mark.parametrize(
    ("environment", "config", "words"),
    [
        ({}, "", "https://s3.amazonaws.com, region us-east-1, virtual-hosted"),
        ({"AWS_REGION": "eu-west-1"}, "", "https://s3.eu-west-1.amazonaws.com, region eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "", "region eu-west-1"),
        ({}, "region = eu-west-3", "region eu-west-3"),
        ({}, "s3 =\n  addressing_style = path", "path-style"),
        ({"AWS_ENDPOINT_URL": "https://h"}, "", "https://h, region us-east-1, path-style"),
        ({"AWS_ENDPOINT_URL": "https://h"}, "s3 =\n  addressing_style = virtual", "virtual"),
        ({"AWS_ENDPOINT_URL": "https://h", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, "",
         "https://s3.amazonaws.com"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "", "https://s3-fips.us-east-1.amazonaws.com"),
    ],
)  # fmt: skip
def test_what_botocore_resolves_holds_for_pyarrow(
    nothing_set, monkeypatch, environment, config, words
):
    settings = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", **environment}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(f"[default]\n{config}\n")
    access = S3Access(StorageParams())
    assert words in access.words()
    assert access.file_system().region == access.region


@pytest.mark.parametrize(
    ("variables", "config", "words"),
    [
        ({"AWS_REGION": "us east 1"}, "", "^Provided region_name 'us east 1' doesn't match"),
        ({}, "s3 = 5", "the AWS configuration file cannot be used"),
        ({"HTTPS_PROXY": "socks5://h:9"}, "", "proxy for https://s3.* is one of socks5"),
    ],
)
def test_what_cannot_be_used_is_one_line(nothing_set, monkeypatch, variables, config, words):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *variables):
        monkeypatch.setenv(name, variables.get(name, "a"))
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(f"[default]\n{config}\n")
    with pytest.raises(OSError, match=words):
        S3Access(StorageParams()).words()
