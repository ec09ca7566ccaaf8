"""``doctor`` sees what is well and what is not."""

import pytest

from orchestration import doctor
from orchestration.doctor import examine
from orchestration.recipe import TrackingParams
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
from tests.s3 import free_port


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    """Starting Ray takes seconds; workflows that run test it enough."""
    monkeypatch.setattr(doctor, "_ray", lambda: (True, "not asked"))


def test_a_healthy_place_is_called_healthy(store, tmp_path):
    tracking = TrackingParams(uri=f"sqlite:///{tmp_path}/mlflow.db")
    found = {finding.check: finding for finding in examine(store, tracking)}
    assert [finding for finding in found.values() if not finding.good] == []
    assert "torch" in found["versions"].saw
    assert "second of two writers is refused" in found["store: conditional write"].saw
    assert ("names and clock" in found) == (not store.is_local)
    assert list(store.walk()) == []  # it leaves nothing behind


def test_a_store_that_does_not_answer_is_named(tmp_path):
    dead = f"http://127.0.0.1:{free_port()}"
    storage = StorageParams(endpoint_url=dead, connect_timeout_s=1, max_attempts=1)
    store = Store("s3://corpus/x", storage)
    tracking = TrackingParams(uri=f"sqlite:///{tmp_path}/mlflow.db")
    found = {finding.check: finding for finding in examine(store, tracking)}
    assert not found["store: write, read, list, remove"].good
    assert "s3://corpus/x" in found["store: write, read, list, remove"].saw
    assert not found["names and clock"].good


def test_a_store_without_conditional_writes_is_found_out(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def careless(self, path, data, version):
        with self.writing(path) as file:
            file.write(data)
        return "written"

    monkeypatch.setattr(type(store.files), "write_if", careless)
    found = {finding.check: finding for finding in examine(store, TrackingParams())}
    assert not found["store: conditional write"].good
