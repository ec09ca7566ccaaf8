"""Secrets of URLs are masked wherever they are stored, logged or shown."""

import io
import logging

import boto3
import pytest
from rich.console import Console

from orchestration import Recipe, Stage, Workflow
from orchestration.errors import RecipeError
from orchestration.fingerprint import fingerprint_of
from orchestration.masking import masked, masked_values
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams, TrackingParams
from orchestration.reporting.logs import log_file
from orchestration.storage.store import Store
from tests.s3 import free_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ann:pw@host/x", "https://***@host/x"),
        ("https://ann:12345@host/x", "https://***@host/x"),
        ("https://token@host", "https://***@host"),
        ("redis://:pw@host:6379/0", "redis://***@host:6379/0"),
        ("http://ann:p@w@host/", "http://***@host/"),
        ("http://ann:p/w?x#y@host:5000/a?b=1", "http://***@host:5000/a?b=1"),
        ("postgresql://ann:p%40w@db/x?password=pw", "postgresql://***@db/x?password=***"),
        ("https://x/y?sv=1&sig=a%2Bb&se=2", "https://x/y?sv=1&sig=***&se=2"),
        ("https://x?GoogleAccessId=me&Signature=q", "https://x?GoogleAccessId=me&Signature=***"),
        ("https://x?Policy=p&Key-Pair-Id=k", "https://x?Policy=***&Key-Pair-Id=***"),
        ("https://x/?access_token=1#top", "https://x/?access_token=***#top"),
        ("https://x/#access_token=1&token_type=b", "https://x/#access_token=***&token_type=***"),
        ("at https://a:b@c or http://d/?api_key=e.", "at https://***@c or http://d/?api_key=***"),
    ],
)  # fmt: skip
def test_user_password_and_signature_are_masked(text, expected):
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "no address ann:pw@host",
        "https://example.org/@ann/post?page=2&author=bob&monkey=3",
        "http://host:80/@foo",
        "http://[::1]:80/a@b",
        "s3://bucket/pre@fix",
        "sqlite:////tmp/a@b/mlflow.db",
    ],
)
def test_text_without_secrets_stays(text):
    assert masked(text) == text


def test_what_botocore_signs_is_masked():
    keys = {"aws_access_key_id": "AKIAHIDDEN", "aws_secret_access_key": "hidden"}
    client = boto3.client("s3", region_name="us-east-1", aws_session_token="HIDDENTOKEN", **keys)
    target = {"Bucket": "b", "Key": "list.tsv"}
    url = client.generate_presigned_url("get_object", Params=target)
    shown = masked(url)
    assert "HIDDEN" in url and "list.tsv" in shown
    assert "HIDDEN" not in shown and shown.count("***") >= 3


def test_values_of_any_depth_are_masked():
    values = {"a": [{"b": "https://u:p@h"}, 1, None], "c": ("https://h/?token=t",)}
    expected = {"a": [{"b": "https://***@h"}, 1, None], "c": ["https://h/?token=***"]}
    assert masked_values(values) == expected


def test_a_new_password_in_a_parameter_changes_no_fingerprint():
    class Params(StageParams):
        address: str

    def identity(password: str):
        stage = Stage("s", lambda c: None, Params(address=f"http://ann:{password}@host/x"))
        return stage.identity({})

    assert fingerprint_of(identity("one")) == fingerprint_of(identity("two"))
    assert "one" not in str(identity("one"))


def test_the_message_of_an_error_is_masked():
    assert str(RecipeError("https://u:p@h/x: 403")) == "https://***@h/x: 403"


def test_messages_and_tracebacks_in_the_log_are_masked(tmp_path):
    with log_file(Store(tmp_path)) as folder:
        try:
            raise ValueError("https://u:hidden@h")
        except ValueError:
            logging.getLogger("any").exception("at %s", "http://h/?token=hidden")
    (log,) = folder.glob("*.log")
    assert "***" in log.read_text() and "hidden" not in log.read_text()


@pytest.mark.slow
def test_a_workdir_and_the_console_hold_no_secret_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shown = io.StringIO()
    uri = f"http://ann:hidden-word@127.0.0.1:{free_port()}"
    recipe = Recipe(
        name="toy",
        cluster=ClusterParams(num_cpus=1, object_store_mb=128),
        tracking=TrackingParams(uri=uri),
    )
    store = Store(tmp_path)
    stage = Stage("a", lambda context: context.commit(), StageParams())
    Workflow(recipe, (stage,)).run(store, Console(file=shown, width=400))
    assert "opened no run for toy yet" in shown.getvalue() and "***@127" in shown.getvalue()
    assert "hidden-word" not in shown.getvalue()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"recipe.yaml", "stage.json"} <= {path.name for path in files}
    assert [path for path in files if b"hidden-word" in path.read_bytes()] == []
