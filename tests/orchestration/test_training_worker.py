"""From which checkpoint the workers of a training continue."""

from types import SimpleNamespace

import pytest
import ray.train.collective
import ray.train.torch
import torch

from orchestration.reporting.run_log import RunLog
from orchestration.session import Session
from orchestration.storage.store import Store
from orchestration.training_worker import Checkpoints, TrainingWorker
from tests.orchestration.test_checkpoint_files import write


@pytest.fixture
def as_worker(monkeypatch):
    """Return a function that makes this process the worker of a rank, in place of Ray Train."""
    sent = []

    def become(rank: int) -> None:
        def broadcast(data: object) -> object:
            if rank == 0:
                sent.append(data)
            return sent[-1]

        here = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: 2)
        monkeypatch.setattr("ray.train.get_context", lambda: here)
        monkeypatch.setattr(ray.train.collective, "broadcast_from_rank_zero", broadcast)
        monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))

    return become


def test_all_workers_continue_from_the_checkpoint_that_the_first_one_found(
    as_worker, monkeypatch, tmp_path
):
    """A network file system may show a checkpoint to one worker and not yet to another."""
    folder = Store(tmp_path / "stage")
    for step in (10, 20):
        local = tmp_path / str(step)
        local.mkdir()
        write(folder, step, local)
    read = []

    def loop(session: Session, job: str) -> None:
        with session.starting_checkpoint() as local:
            read.append((session.has_checkpoint(), local and local.name))

    log = RunLog(f"sqlite:///{tmp_path}/mlflow.db", "none")
    worker = TrainingWorker(loop, "job", Checkpoints(folder, 3, None), log, 1, None, ())
    as_worker(0)
    worker({})
    monkeypatch.setattr(Checkpoints, "newest", lambda self: None)
    as_worker(1)
    worker({})
    assert read == [(True, "step_00000020")] * 2
    as_worker(0)
    worker({})
    assert read[2:] == [(False, None)]
