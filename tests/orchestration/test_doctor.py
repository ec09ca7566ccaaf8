"""``doctor`` reports what works on this machine and what does not."""

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from orchestration import doctor
from orchestration.doctor import examine
from orchestration.recipe import TrackingParams
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
from pipelines.cli import app
from tests.s3 import BUCKET, free_port

READ = "store: write, read, list, remove"


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    """Starting Ray takes seconds, and other tests start it."""
    monkeypatch.setattr(doctor, "_ray", lambda: (True, "not started"))


def test_a_working_machine_passes_every_check(store, tmp_path):
    tracking = TrackingParams(uri=f"sqlite:///{tmp_path}/mlflow.db")
    found = {finding.check: finding for finding in examine(store, tracking)}
    assert [finding for finding in found.values() if not finding.ok] == []
    assert "torch" in found["versions"].details
    assert "of two concurrent writers one is refused" in found["store: conditional write"].details
    assert ("DNS and clock" in found) == (not store.is_local)
    if not store.is_local:
        access = found["store: endpoint and credentials"].details
        assert str(store.storage.endpoint_url) in access and "credentials from env" in access
        assert "by boto3 and pyarrow alike" in found[READ].details
    assert list(store.walk()) == []  # the checks leave no file behind


def test_a_local_workdir_that_did_not_exist_does_not_afterwards(tmp_path):
    workdir = Store(tmp_path / "runs" / "demo")
    assert all(finding.ok for finding in examine(workdir, TrackingParams()))
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_store_is_named(tmp_path):
    dead = f"http://127.0.0.1:{free_port()}"
    storage = StorageParams(endpoint_url=dead, connect_timeout_s=1, max_attempts=1)
    store = Store("s3://corpus/x", storage)
    tracking = TrackingParams(uri=f"sqlite:///{tmp_path}/mlflow.db")
    found = {finding.check: finding for finding in examine(store, tracking)}
    assert not found["store: write, read, list, remove"].ok
    assert "s3://corpus/x" in found["store: write, read, list, remove"].details
    assert not found["DNS and clock"].ok


def test_a_store_without_conditional_writes_fails_the_check(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def unconditional(self, path, data, version):
        with self.writing(path) as file:
            file.write(data)
        return "written"

    monkeypatch.setattr(type(store.files), "write_if", unconditional)
    found = {finding.check: finding for finding in examine(store, TrackingParams())}
    assert not found["store: conditional write"].ok


def test_a_store_that_gives_other_bytes_fails_in_words(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr(type(store.files), "open", lambda self, path: pa.BufferReader(b"other"))
    found = {finding.check: finding for finding in examine(store, TrackingParams())}
    assert not found[READ].ok
    assert found[READ].details == "pyarrow read other bytes than were written"


def test_a_workdir_on_s3_is_examined_without_a_tracking_server(s3_endpoint, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = ["--workdir", f"s3://{BUCKET}/doctor", "--endpoint-url", s3_endpoint]
    result = CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "needs tracking.uri" in result.output


def test_a_store_behind_a_proxy_is_named_with_it(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://user:hidden@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "inside.example.org")
    assert doctor.proxy_for("http://inside.example.org:9000") is None
    assert doctor.proxy_for("http://minio.example.org") == "http://***@127.0.0.1:9"
    ok, words = doctor._proxies()
    assert ok and words == "http:// through http://***@127.0.0.1:9; not for inside.example.org"
    monkeypatch.delenv("http_proxy")
    assert doctor._proxies() == (True, "none in the environment")
