"""``doctor`` reports what works on this machine and what does not."""

import pytest

from orchestration import doctor
from orchestration.doctor import examine
from orchestration.recipe import TrackingParams
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
from tests.s3 import free_port


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
    assert list(store.walk()) == []  # the checks leave no file behind


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
