"""Checkpoints that are written while a training goes on: when they are whole, and what fails.

Trainings that are killed while they write are in ``tests/crashes``.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from orchestration.checkpoint_files import (
    RAY_TRAIN,
    checkpoint_name,
    damage_of,
    newest_whole,
    step_of,
)
from orchestration.checkpoint_writer import CheckpointWriter
from orchestration.errors import StageError, StoreError
from orchestration.storage.store import Store
from tests.processes import run_processes

NUM_WORKERS = 3
LIST = "files-00000-of-00001.json"


def writing(text: str, meanwhile: Callable[[], None] = lambda: None):
    """Return a copy of a state that is one file ``shard`` with a text."""

    def copy(folder: Path, group: dist.ProcessGroup | None) -> Callable[[], None]:
        def write() -> None:
            meanwhile()
            (folder / "shard").write_text(text)

        return write

    return copy


def refusing(error: BaseException):
    def refuse() -> None:
        raise error

    return writing("", refuse)


@pytest.fixture
def folder(tmp_path) -> Store:
    return Store(tmp_path)


def test_the_training_goes_on_while_a_checkpoint_is_written(folder):
    go_on = threading.Event()
    writer = CheckpointWriter(folder, 0, 1)
    writer.save(10, 0, writing("a", lambda: go_on.wait(30)))
    assert newest_whole(folder) is None
    go_on.set()
    writer.wait(must_be_whole=True)
    newest = newest_whole(folder)
    assert newest is not None and step_of(newest) == 10 and newest.read("shard") == b"a"


def test_one_checkpoint_is_written_at_a_time(folder):
    begun, writer = [], CheckpointWriter(folder, 0, 1)
    for step in range(3):

        def note(step: int = step) -> None:
            begun.append(step)
            time.sleep(0.2)

        writer.save(step, 0, writing("a", note))
        last = newest_whole(folder)
        assert (step_of(last) if last is not None else -1) == step - 1
    writer.close()
    assert begun == [0, 1, 2]


def test_the_state_is_that_of_the_step_at_which_it_was_copied(folder):
    state, go_on = {"weight": 1}, threading.Event()

    def copy(local: Path, group: dist.ProcessGroup | None) -> Callable[[], None]:
        text = json.dumps(state)

        def write() -> None:
            go_on.wait(30)
            (local / "shard").write_text(text)

        return write

    writer = CheckpointWriter(folder, 0, 1)
    writer.save(1, 0, copy)
    state["weight"] = 2
    go_on.set()
    writer.close()
    newest = newest_whole(folder)
    assert newest is not None and json.loads(newest.read("shard")) == {"weight": 1}


def test_a_failure_that_may_pass_is_reported_and_the_next_checkpoint_is_saved(folder, caplog):
    writer = CheckpointWriter(folder, 0, 1)
    with caplog.at_level(logging.WARNING):
        writer.save(10, 0, refusing(OSError(28, "No space left on device")))
        writer.wait(must_be_whole=False)
    assert "checkpoint of step 10 could not be saved: OSError: [Errno 28] No space" in caplog.text
    assert newest_whole(folder) is None
    writer.save(20, 0, writing("a"))
    writer.wait(must_be_whole=True)
    writer.save(30, 0, refusing(StoreError("s3://b/k: 503")))
    with pytest.raises(StoreError, match="step 30 could not be saved: StoreError: s3://b/k: 503"):
        writer.wait(must_be_whole=True)
    newest = newest_whole(folder)
    assert newest is not None and step_of(newest) == 20


def test_what_is_stored_of_a_checkpoint_that_failed_is_removed(folder, monkeypatch):
    """Else each attempt on a disk that is nearly full would leave less room for the next one."""
    write_file = Store.write_file

    def full(self: Store, path: str, source: Path):
        if path == "shard-b":
            raise StoreError(f"{self.uri_of(path)}: No space left on device")
        return write_file(self, path, source)

    def copy(local: Path, group: dist.ProcessGroup | None) -> Callable[[], None]:
        def write() -> None:
            for name in ("shard-a", "shard-b"):
                (local / name).write_text(name)

        return write

    writer = CheckpointWriter(folder, 0, 1)
    writer.save(10, 0, writing("a"))
    writer.wait(must_be_whole=True)
    monkeypatch.setattr(Store, "write_file", full)
    writer.save(20, 0, copy)
    with pytest.raises(StoreError, match=r"step 20 .*step_00000020/shard-b: No space left"):
        writer.wait(must_be_whole=True)
    assert folder.folders(RAY_TRAIN) == ["step_00000010"]


def test_a_state_that_cannot_be_copied_for_lack_of_room_ends_no_step(folder, caplog):
    def copy(local: Path, group: dist.ProcessGroup | None) -> Callable[[], None]:
        raise OSError(28, "No space left on device", str(local / "history.json"))

    writer = CheckpointWriter(folder, 0, 1)
    with caplog.at_level(logging.WARNING):
        writer.save(10, 0, copy)
        writer.wait(must_be_whole=False)
    assert "step 10 could not be saved: OSError: [Errno 28] No space left" in caplog.text
    assert "history.json" in caplog.text and "is saved when it is due" in caplog.text
    with pytest.raises(StoreError, match="step 10 could not be saved"):
        writer.wait(must_be_whole=True)
    writer.save(20, 0, writing("a"))
    writer.wait(must_be_whole=True)
    newest = newest_whole(folder)
    assert newest is not None and step_of(newest) == 20


def test_a_failure_that_would_come_again_ends_the_training(folder):
    writer = CheckpointWriter(folder, 0, 1)
    writer.save(10, 0, refusing(TypeError("cannot pickle")))
    writer.close()
    for call in (
        writer.refuse_lasting_failure,
        partial(writer.wait, must_be_whole=False),
        lambda: writer.save(20, 0, writing("a")),
    ):
        with pytest.raises(StageError, match="step 10 could not be saved: TypeError: cannot pick"):
            call()


def test_the_list_is_removed_first_and_written_last(folder, monkeypatch):
    checkpoint = folder.sub(f"{RAY_TRAIN}/{checkpoint_name(10)}")
    checkpoint.write_bytes("shard", b"a")
    checkpoint.write_bytes(LIST, b'[{"path": "shard", "bytes": 1, "sha256": "x"}]')
    assert damage_of(checkpoint, read=False) is None
    seen: list[str | None] = []
    write_file = Store.write_file

    def noting(self: Store, path: str, source: Path):
        seen.append(damage_of(checkpoint, read=False))
        return write_file(self, path, source)

    monkeypatch.setattr(Store, "write_file", noting)
    writer = CheckpointWriter(folder, 0, 1)
    writer.save(10, 0, writing("b"))
    writer.wait(must_be_whole=True)
    assert seen == ["it has no list of its files"] * 2
    assert damage_of(checkpoint) is None


def test_a_failure_to_remove_old_checkpoints_is_reported(folder, caplog):
    def remove() -> None:
        raise StoreError("s3: 503")

    writer = CheckpointWriter(folder, 0, 1, after=remove)
    writer.save(10, 0, writing("a"))
    writer.wait(must_be_whole=True)
    assert "old checkpoint could not be removed: s3: 503" in caplog.text


def in_worker(rank: int, folder: Store) -> None:
    writer = CheckpointWriter(folder, rank, NUM_WORKERS)
    outcomes = []

    def shard(step: int) -> Callable[[Path, dist.ProcessGroup | None], Callable[[], None]]:
        def copy(local: Path, group: dist.ProcessGroup | None) -> Callable[[], None]:
            def write() -> None:
                if rank == 1:
                    time.sleep(0.5)
                    lists = folder.names(f"{RAY_TRAIN}/{checkpoint_name(step)}", ".json")
                    assert lists == [], "a list before the files of all workers"
                if step == 20 and rank == 2:
                    raise StoreError("s3://b/k: 503")
                (local / f"shard-{rank}").write_text(str(step))

            return write

        return copy

    for step in (10, 20, 30, 20):
        writer.save(step, 0, shard(step))
        dist.all_reduce(torch.ones(1))  # the steps of the training exchange beside it
    try:
        writer.wait(must_be_whole=True)
    except StoreError as error:
        outcomes.append(str(error))
    folder.write_bytes(f"outcome-{rank}", json.dumps(outcomes).encode())


def test_all_workers_agree_on_a_checkpoint_that_one_could_not_save(folder):
    run_processes(NUM_WORKERS, in_worker, folder)
    words = ["the checkpoint of step 20 could not be saved: StoreError: s3://b/k: 503"]
    for rank in range(NUM_WORKERS):
        assert json.loads(folder.read(f"outcome-{rank}")) == words
    assert folder.names(f"{RAY_TRAIN}/{checkpoint_name(20)}", ".json") == []
    newest = newest_whole(folder)
    assert newest is not None and step_of(newest) == 30
    assert {path for path, _ in newest.walk()} == {
        *(f"shard-{rank}" for rank in range(NUM_WORKERS)),
        *(f"files-{rank:05d}-of-{NUM_WORKERS:05d}.json" for rank in range(NUM_WORKERS)),
    }
