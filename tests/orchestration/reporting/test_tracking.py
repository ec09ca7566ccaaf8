"""MLflow runs in a real store: metrics that could not be sent are not lost."""

import json
import pickle
import sys

import pytest
from mlflow import MlflowClient

from orchestration.errors import StageError
from orchestration.recipe import TrackingParams
from orchestration.reporting.tracking import RunLog, Tracker
from orchestration.storage.store import Store

pytestmark = pytest.mark.slow


def test_metrics_that_a_worker_could_not_send_are_sent_by_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    workdir = Store(tmp_path)
    driver = Tracker(TrackingParams(), workdir).run(workdir.sub("stage"), "stage")
    worker: RunLog = pickle.loads(pickle.dumps(driver))
    worker.uri = "http://127.0.0.1:1"  # the server is unreachable for the worker
    for step in range(2000):
        worker.metrics({"loss": step / 2}, step)
    worker.flush()
    left = json.loads(json.dumps(worker.unsent()))
    assert len(left) == 2000
    driver.send_again(left)
    assert driver.unsent() == []
    client = MlflowClient(driver.uri)
    history = client.get_metric_history(driver.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(i, i / 2) for i in range(2000)]


def test_a_broken_installation_of_mlflow_fails_at_once(tmp_path, monkeypatch):
    """An unreachable server is retried; a missing package is not."""
    store = Store(tmp_path)
    tracker = Tracker(TrackingParams(), store)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(StageError, match="not installed correctly"):
        tracker.run(store, "stage")
