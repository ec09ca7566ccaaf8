"""What is called for the checkpoints of a training that goes on."""

import threading
from pathlib import Path

import pytest

from orchestration import checkpoint_watch
from orchestration.checkpoint_files import RAY_TRAIN, checkpoint_name, step_of, write_list
from orchestration.checkpoint_watch import watching_checkpoints
from orchestration.errors import StoreError
from orchestration.storage.store import Store

TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(checkpoint_watch, "_LOOK_EVERY_S", 0.02)


def write(folder: Path, step: int, *, whole: bool = True) -> Store:
    """Write a checkpoint of one worker."""
    path = folder / RAY_TRAIN / checkpoint_name(step)
    path.mkdir(parents=True)
    (path / "a").write_bytes(b"weights")
    if whole:
        write_list(path, 0, 1)
    return Store(path)


class Called:
    """Notes for which checkpoints it is called."""

    def __init__(self, until: int) -> None:
        self.steps: list[int] = []
        self.done = threading.Event()
        self.ended: threading.Event | None = None
        self._until = until

    def __call__(self, checkpoint: Store, ended: threading.Event) -> None:
        self.ended = ended
        self.steps.append(step_of(checkpoint))
        if self.steps[-1] == self._until:
            self.done.set()


def test_new_whole_checkpoints_are_passed_on_once_and_in_order(tmp_path):
    first = write(tmp_path, 10)
    write(tmp_path, 20, whole=False)
    write(tmp_path, 30)
    called = Called(until=50)
    with watching_checkpoints(Store(tmp_path), first, called):
        write(tmp_path, 40, whole=False)
        write(tmp_path, 50)
        assert called.done.wait(TIMEOUT_S)
        assert not called.ended.is_set()
    assert called.ended.is_set()
    assert called.steps == [30, 50]


def test_a_store_that_does_not_answer_ends_nothing(tmp_path, monkeypatch):
    answers = iter([StoreError("no answer")])
    listed = checkpoint_watch.checkpoints

    def sometimes(folder):
        if error := next(answers, None):
            raise error
        return listed(folder)

    monkeypatch.setattr(checkpoint_watch, "checkpoints", sometimes)
    write(tmp_path, 10)
    called = Called(until=10)
    with watching_checkpoints(Store(tmp_path), None, called):
        assert called.done.wait(TIMEOUT_S)


def test_an_error_of_the_training_passes_through(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        watching_checkpoints(Store(tmp_path), None, Called(until=1)),
    ):
        raise KeyboardInterrupt
    assert all(not t.name.startswith("checkpoints of") for t in threading.enumerate())
