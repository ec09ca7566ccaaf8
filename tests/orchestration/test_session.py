"""What a training loop sees of its surroundings: the end that the user wants, and a failing store.

The whole of it, with Ray Train, is in ``tests/crashes``.
"""

import io
import json
import logging
import threading
import time
from pathlib import Path

import pytest
import torch
from ray.train import PreemptionInfo
from rich.console import Console

from orchestration.reporting.progress import (
    HEARTBEAT,
    Shown,
    StageProgress,
    read_heartbeat,
    write_heartbeat,
)
from orchestration.reporting.run_log import RunLog
from orchestration.session import SAVE, STOP, UNSENT, Reporter, Session, Wish
from orchestration.storage.store import Store
from orchestration.training_size import saved_now
from tests.processes import run_processes

NUM_WORKERS = 3
STOPPED_IN = 7


class Asked:
    """A reporter that the user's wish reaches during a step."""

    must_stop = False

    def must_save(self) -> bool:
        return False


def work(rank: int, folder: str) -> None:
    asked = Asked()
    session = Session(
        rank,
        NUM_WORKERS,
        1,
        torch.device("cpu"),
        asked if rank == 0 else None,  # type: ignore
    )
    for step in range(100):
        time.sleep(0.002 * ((step + rank) % NUM_WORKERS))  # no worker is always the first
        asked.must_stop = step >= STOPPED_IN
        if session.wish() is Wish.STOP:
            break
    Path(folder, str(rank)).write_text(str(step))


def test_all_workers_stop_after_the_same_step(tmp_path):
    """The wish of the first worker reaches the others during the next step."""
    run_processes(NUM_WORKERS, work, str(tmp_path))
    steps = [int((tmp_path / str(rank)).read_text()) for rank in range(NUM_WORKERS)]
    assert steps == [STOPPED_IN + 1] * NUM_WORKERS


def session_of_one(reporter, **options) -> Session:
    return Session(0, 1, 1, torch.device("cpu"), reporter, **options)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock whose only element is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr("orchestration.session.time.monotonic", lambda: now[0])
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: None)
    return now


def test_a_checkpoint_is_due_a_time_after_the_last_one(clock):
    session = session_of_one(Asked(), save_every_s=60)
    wishes = []
    for _ in range(20):
        clock[0] += 20
        wishes.append(session.wish())
    assert [i for i, wish in enumerate(wishes) if wish is Wish.SAVE] == [2, 5, 8, 11, 14, 17]
    assert set(wishes) == {Wish.SAVE, Wish.NOTHING}


def test_a_stop_counts_more_than_a_checkpoint_that_is_due(clock):
    asked = Asked()
    asked.must_stop = True
    session = session_of_one(asked, save_every_s=60)
    clock[0] += 100
    assert session.wish() is Wish.STOP


def test_a_worker_without_reporter_wishes_nothing(clock):
    session = session_of_one(None, save_every_s=60)
    clock[0] += 1000
    assert session.wish() is Wish.NOTHING


def test_a_notice_that_a_node_will_be_lost_saves_a_checkpoint_once(clock, monkeypatch):
    notices = iter([None, ["a"], ["a"], ["a", "b"], ["a", "b"]])
    asked_at = []

    def notice():
        asked_at.append(clock[0])
        nodes = next(notices)
        return nodes and PreemptionInfo(None, {node: [0] for node in nodes})

    monkeypatch.setattr("ray.train.get_preemption_info", notice)
    session = session_of_one(Asked())
    wishes = []
    for _ in range(25):
        clock[0] += 1
        wishes.append(session.wish())
    assert [i + 101 for i, wish in enumerate(wishes) if wish is Wish.SAVE_NOW] == [110, 120]
    assert asked_at == [105, 110, 115, 120, 125]


def log_without_server() -> RunLog:
    return RunLog("http://127.0.0.1:9", "run")


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


def test_a_store_that_fails_does_not_end_the_reporter(tmp_path, caplog, unreachable):
    folder = Store(tmp_path / "folder")
    Path(folder.uri).write_text("a file where the folder should be")
    reporter = Reporter(folder, log_without_server())
    reporter.show(1, 10, {"loss": 3.0})
    time.sleep(1.5)
    Path(folder.uri).unlink()
    reporter.show(2, 10, {"loss": 2.0})
    deadline = time.monotonic() + 20
    while not folder.exists(HEARTBEAT):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    folder.write_bytes(STOP, b"{}")
    while not reporter.must_stop:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    folder.remove("")
    Path(folder.uri).write_text("again")
    reporter.close()
    assert "could not be stored" in caplog.text


def test_each_request_for_a_checkpoint_is_answered_once(tmp_path):
    folder = Store(tmp_path)
    reporter = Reporter(folder, log_without_server())
    answers = []
    for content in (b"first", b"first", b"second"):
        folder.write_bytes(SAVE, content)
        time.sleep(1.5)
        answers.append(reporter.must_save())
        assert not reporter.must_save()
    reporter.close()
    assert answers == [True, False, True]


def test_healthy_workers_save_a_checkpoint_before_they_are_stopped(tmp_path):
    folder, step = Store(tmp_path), [15]

    def train() -> None:
        while not folder.exists(SAVE):
            time.sleep(0.05)
        step[0] = 17

    thread = threading.Thread(target=train)
    thread.start()
    saved_now(folder, lambda: step[0])
    thread.join()
    assert step == [17] and not folder.exists(SAVE)


def test_a_tracking_server_that_does_not_answer_delays_no_stop(tmp_path, monkeypatch):
    log = log_without_server()
    waiting = threading.Event()
    monkeypatch.setattr("orchestration.session._FLUSH_EVERY_S", 0.1)
    monkeypatch.setattr(log, "flush", lambda: waiting.wait(30))
    folder = Store(tmp_path)
    reporter = Reporter(folder, log)
    time.sleep(0.5)
    folder.write_bytes(STOP, b"{}")
    deadline = time.monotonic() + 20
    while not reporter.must_stop:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    waiting.set()
    reporter.close()


def test_metrics_that_are_not_sent_outlive_the_worker(tmp_path, unreachable):
    folder = Store(tmp_path)
    attempts = [Reporter(folder, log_without_server()) for _ in range(2)]
    for step, reporter in enumerate(attempts):
        reporter.log.metrics({"loss": 3.0}, step)
        reporter.keep_unsent()
    left = [json.loads(folder.read(f"{UNSENT}/{name}")) for name in folder.names(UNSENT, ".json")]
    assert sorted(step for ((_, _, _, step),) in left) == [0, 1]
    for reporter in attempts:
        reporter.close()


def test_a_heartbeat_that_cannot_be_written_fails_no_stage(tmp_path, caplog):
    folder = Store(tmp_path / "folder")
    Path(folder.uri).write_text("a file where the folder should be")
    progress = StageProgress("s", folder, Shown(Console(file=io.StringIO()), None))
    with caplog.at_level(logging.WARNING):
        progress.start(1, 5, resumed=0)
        progress.advance(5, progress.rejects)
        progress.failed(1)
        with progress.following_heartbeat():
            time.sleep(0.7)
            Path(folder.uri).unlink()
            write_heartbeat(folder, 3, 9, "steps", "loss 1")
            deadline = time.monotonic() + 20
            while progress.done != 3:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    assert "could not be stored" in caplog.text
    found = read_heartbeat(folder)
    assert found is not None and found["total"] == 9
