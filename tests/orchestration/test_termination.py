"""SIGTERM to a worker while a checkpoint is written; with Ray Train it is in ``tests/crashes``."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from orchestration.checkpoint_files import checkpoints, damage_of, step_of
from orchestration.checkpoint_writer import CheckpointWriter
from orchestration.errors import StoreError
from orchestration.session import Session, Wish
from orchestration.storage.store import Store
from orchestration.termination import WorkerTerminated, heed_sigterm
from tests.processes import run_processes

NUM_WORKERS, SAVED_AT, TERMINATED_AT = 2, 3, 5


class Quiet:
    """A reporter that is asked for nothing."""

    must_stop = False

    def must_save(self) -> bool:
        return False


def slowly(step: int, rank: int, *, fails: bool):
    """Return a copy whose writing takes longer than some steps."""

    def copy(local: Path, group: dist.ProcessGroup | None) -> Callable[[], None]:
        def write() -> None:
            time.sleep(1)
            if fails and rank == 0 and step == SAVED_AT:
                raise StoreError("s3://b/k: 503")
            (local / f"shard-{rank}").write_text(str(step))

        return write

    return copy


def work(rank: int, folder: Path, fails: bool) -> None:
    """Train until the second worker has left."""
    heed_sigterm()
    reporter = Quiet() if rank == 0 else None
    writer = CheckpointWriter(Store(folder), rank, NUM_WORKERS)
    device = torch.device("cpu")
    session = Session(rank, NUM_WORKERS, 1, device, reporter, writer=writer)  # type: ignore
    for step in range(1, 20):
        if (rank, step) == (1, TERMINATED_AT):
            os.kill(os.getpid(), signal.SIGTERM)
        wish = session.wish()
        if wish is Wish.SAVE_NOW or step == SAVED_AT:
            try:
                session.save(step, slowly(step, rank, fails=fails), now=wish is Wish.SAVE_NOW)
            except WorkerTerminated:
                (folder / f"left-{rank}").write_text(str(step))
            if wish is Wish.SAVE_NOW:
                break
    writer.close()


@pytest.mark.parametrize("fails", [False, True])
def test_the_checkpoint_that_is_written_and_one_of_the_last_step_are_whole(tmp_path, fails):
    run_processes(NUM_WORKERS, work, tmp_path, fails)
    whole = [step_of(each) for each in checkpoints(Store(tmp_path)) if damage_of(each) is None]
    last = TERMINATED_AT + 1  # the workers agree while the next step runs
    assert whole == ([last] if fails else [last, SAVED_AT])
    assert [path.name for path in tmp_path.glob("left-*")] == ["left-1"]
    assert (tmp_path / "left-1").read_text() == str(last)
