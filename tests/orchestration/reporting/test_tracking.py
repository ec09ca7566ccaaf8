"""MLflow runs in a real store: every point arrives, or the user reads that it does not."""

import json
import pickle
import sys
import threading
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from orchestration.errors import RecipeError, StageError
from orchestration.recipe import TrackingParams
from orchestration.reporting.run_log import RunLog
from orchestration.reporting.tracking import RUN_FILE, Tracker, sqlite_uri
from orchestration.storage.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """An empty database, which takes MLflow seconds to create."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workdir(tmp_path, database) -> Store:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    return Store(folder)


class Opened:
    """The run of one stage, and what the user was told."""

    def __init__(self, workdir: Store, uri: str | None = None) -> None:
        self.told: list[str] = []
        self.tracker = Tracker(TrackingParams(uri=uri), workdir, self.told.append)
        self.log = self.tracker.run(workdir.sub("stage"), "stage")
        self.client = MlflowClient(sqlite_uri(workdir))

    def points(self, name: str) -> list[tuple[int, float]]:
        assert self.log.run_id is not None
        history = self.client.get_metric_history(self.log.run_id, name)
        return sorted((m.step, m.value) for m in history)


def test_metrics_that_a_worker_could_not_send_are_sent_by_the_driver(workdir, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    opened = Opened(workdir)
    worker: RunLog = pickle.loads(pickle.dumps(opened.log))
    worker.uri = "http://127.0.0.1:1"  # the server is unreachable for the worker
    for step in range(2000):
        worker.metrics({"loss": step / 2}, step)
    worker.flush()
    left = json.loads(json.dumps(worker.unsent()))
    assert len(left) == 2000
    opened.log.send_again(left)
    assert opened.log.unsent() == []
    assert opened.points("loss") == [(i, i / 2) for i in range(2000)]


@pytest.mark.parametrize(("pause_s", "num_steps"), [(0.0, 300), (0.01, 300), (0.2, 40)])
def test_metrics_that_arrive_while_others_are_sent_are_not_lost(
    workdir, monkeypatch, pause_s, num_steps
):
    opened = Opened(workdir)
    client = opened.log.client()
    log_batch = client.log_batch

    def slow(*args, **kwargs):
        log_batch(*args, **kwargs)
        time.sleep(pause_s)

    monkeypatch.setattr(client, "log_batch", slow)
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            opened.log.flush()

    sender = threading.Thread(target=send)
    sender.start()
    for step in range(num_steps):
        opened.log.metrics({"loss": step / 2, "lr": 1.0}, step)
        time.sleep(0.001)
    done.set()
    sender.join()
    opened.log.finish("FINISHED")
    assert opened.points("loss") == [(i, i / 2) for i in range(num_steps)]
    assert len(opened.points("lr")) == num_steps
    assert opened.told == []


def test_a_passing_failure_loses_no_metric_and_is_told_once(workdir, monkeypatch):
    opened = Opened(workdir)
    client = opened.log.client()
    with monkeypatch.context() as patch:
        patch.setattr(client, "log_batch", lambda *a, **k: 1 / 0)
        for step in range(3):
            opened.log.metrics({"loss": 1.0}, step)
            opened.log.flush()
    assert len(opened.told) == 1 and "sent later" in opened.told[0]
    opened.log.flush()
    assert len(opened.points("loss")) == 3


@pytest.mark.parametrize("bad", ["loss@x", "a+b", "perplexity?", "x" * 300])
def test_a_metric_that_is_refused_is_named_and_the_others_arrive(workdir, bad):
    opened = Opened(workdir)
    for step in range(5):
        opened.log.metrics({"before": 1.0, bad: 2.0, "after": 3.0}, step)
    opened.log.finish("FINISHED")
    assert len(opened.points("before")) == len(opened.points("after")) == 5
    assert opened.told and all(bad[:100] in line for line in opened.told)


def delete_run(opened: Opened, workdir: Store) -> None:
    opened.client.delete_run(opened.log.run_id)


def forget_run(opened: Opened, workdir: Store) -> None:
    record = {"uri": opened.tracker.uri, "run_id": "0" * 32}
    workdir.sub("stage").write_bytes(RUN_FILE, json.dumps(record).encode())


@pytest.mark.parametrize("lose", [delete_run, forget_run])
def test_a_lost_run_is_replaced_aloud_when_the_workflow_starts_again(workdir, lose):
    first = Opened(workdir)
    lose(first, workdir)
    again = Opened(workdir)
    assert again.log.run_id != first.log.run_id
    (line,) = again.told
    assert "no longer has the run" in line and "a new run replaces it" in line
    assert Opened(workdir).log.run_id == again.log.run_id


def test_a_run_moves_below_another_when_it_goes_on_there_or_is_adopted(workdir):
    tracker = Tracker(TrackingParams(), workdir)
    client = MlflowClient(sqlite_uri(workdir))

    def parent_of(log: RunLog) -> str | None:
        return client.get_run(log.run_id).data.tags.get("mlflow.parentRunId")

    first, second = (tracker.run(workdir.sub(name), name) for name in ("first", "second"))
    assert parent_of(first) is None
    study = tracker.run(workdir.sub("study"), "study")
    assert parent_of(tracker.run(workdir.sub("first"), "first", study)) == study.run_id
    second.finish("FINISHED")
    tracker.adopt(workdir.sub("second"), "second", study)
    assert parent_of(second) == study.run_id
    assert client.get_run(second.run_id).info.status == "FINISHED"
    tracker.adopt(workdir.sub("never"), "never", study)  # there is none
    assert not workdir.exists(f"never/{RUN_FILE}")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"uri": null, "run_id": 3}'])
def test_a_damaged_record_of_a_run_is_replaced_aloud(workdir, content):
    first = Opened(workdir)
    workdir.write_bytes(f"stage/{RUN_FILE}", content)
    again = Opened(workdir)
    (line,) = again.told
    assert f"{workdir.uri}/stage/{RUN_FILE} is damaged: a new MLflow run" in line
    assert again.log.run_id not in (None, first.log.run_id)
    assert Opened(workdir).log.run_id == again.log.run_id


def test_a_run_that_is_deleted_during_the_work_is_replaced_aloud(workdir):
    opened = Opened(workdir)
    first = opened.log.run_id
    opened.log.metrics({"loss": 1.0}, 1)
    opened.client.delete_run(first)
    opened.log.flush()
    assert opened.log.run_id != first and opened.points("loss") == [(1, 1.0)]
    assert "a new run replaces it" in opened.told[0]


def test_a_deleted_experiment_is_refused_with_the_way_out(workdir):
    first = Opened(workdir)
    experiment = first.client.get_run(first.log.run_id).info.experiment_id
    first.client.delete_experiment(experiment)
    with pytest.raises(RecipeError, match=r"was deleted; restore it \(`mlflow experiments restore"):
        Opened(workdir)


def test_an_experiment_that_is_deleted_during_the_work_keeps_the_metrics(workdir):
    opened = Opened(workdir)
    experiment = opened.client.get_run(opened.log.run_id).info.experiment_id
    opened.client.delete_experiment(experiment)
    for step in range(3):
        opened.log.metrics({"loss": 1.0}, step)
        opened.log.flush()
    assert len(opened.told) == 1 and "was deleted; restore it" in opened.told[0]
    opened.client.restore_experiment(experiment)
    opened.log.flush()
    assert len(opened.points("loss")) == 3


def test_a_new_password_continues_the_same_run(workdir, monkeypatch):
    real, uri = mlflow.MlflowClient, sqlite_uri(workdir)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda _: real(uri))
    first = Opened(workdir, "http://ann:old-word@tracking.test")
    second = Opened(workdir, "http://ann:new-word@tracking.test")
    other = Opened(workdir, "http://ann:new-word@elsewhere.test")
    assert first.log.run_id == second.log.run_id != other.log.run_id
    assert b"word" not in workdir.sub("stage").read(RUN_FILE)
    second.log.params({"tracking": {"uri": "http://ann:new-word@tracking.test"}})
    params = real(uri).get_run(second.log.run_id).data.params
    assert params == {"tracking.uri": "http://***@tracking.test"}


@pytest.mark.parametrize("name", ["a b", "c#1", "é+f", "g&h=i;j", "100%", "k@l", "[m]"])
def test_the_database_lies_in_the_workdir_whatever_its_name(tmp_path, database, name):
    workdir = Store(tmp_path / name)
    Path(workdir.uri).mkdir()
    Path(workdir.uri, "mlflow.db").write_bytes(database.read_bytes())
    figure = Path(workdir.uri, "figure.txt")
    figure.write_text("drawn")
    opened = Opened(workdir)
    opened.log.metrics({"loss": 1.0}, 1)
    opened.log.artifact(figure)
    opened.log.finish("FINISHED")
    assert opened.told == [] and opened.points("loss") == [(1, 1.0)]
    assert len(list(figure.parent.rglob("artifacts/figure.txt"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a?x=1", "b%20c", "d%2F..", "a b#1%20é?x=1"])
def test_a_workdir_whose_path_cannot_stand_in_a_uri_is_refused(tmp_path, name):
    with pytest.raises(RecipeError, match="choose a workdir without it"):
        Tracker(TrackingParams(), Store(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_a_broken_installation_of_mlflow_fails_at_once(tmp_path, monkeypatch):
    """An unreachable server is retried; a missing package is not."""
    store = Store(tmp_path)
    tracker = Tracker(TrackingParams(), store)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(StageError, match="not installed correctly"):
        tracker.run(store, "stage")
