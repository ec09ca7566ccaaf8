"""The training loop with a linear regression as its task: schedule, guard, history, resume.

Resume of the real trainings is tested beside them and in ``tests/end_to_end``.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.training.checkpoints import HISTORY_FILE, num_skipped_steps, read_history
from pipelines.training.loop import StepOutcome, train
from pipelines.training.params import TrainingLoopParams
from tests.one_worker import OneWorker


@dataclass(frozen=True)
class LineJob:
    """Fits y = 3 x; the gradient of the steps in ``broken`` is not finite."""

    params: TrainingLoopParams
    seed: int = 0
    broken: tuple[int, ...] = ()

    def make_task(self, session: OneWorker) -> "LineTask":
        return LineTask(self)


class LineTask:
    """Counts nothing and draws its data from the step alone."""

    def __init__(self, job: LineJob) -> None:
        self.job = job
        self.network = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.0)

    def batches(self, step: int) -> torch.Tensor:
        return torch.randn(8, 1, generator=torch.Generator().manual_seed(step))

    def step(
        self, batches: torch.Tensor, step: int, lr: float, autocast: torch.autocast
    ) -> StepOutcome:
        with autocast:
            loss = ((self.network(batches) - 3 * batches) ** 2).mean()
        if step in self.job.broken:
            return StepOutcome({"loss": math.nan}, skipped=True)
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return StepOutcome({"loss": float(loss)}, skipped=False)

    def write_files(self, folder: Path) -> None:
        (folder / "weight.json").write_text(json.dumps(self.network.weight.tolist()))


def params(**changes: object) -> TrainingLoopParams:
    values = {
        "steps": 40, "lr": 0.2, "min_lr": 0.01, "warmup_steps": 4, "weight_decay": 0.0,
        "substreams": 1, "precision": "fp32", "max_skipped_steps": 3, "checkpoint_every": 15,
    }  # fmt: skip
    return TrainingLoopParams.model_validate(values | changes)


def weight(folder: Path) -> float:
    [[value]] = json.loads((folder / "weight.json").read_text())
    return float(value)


def test_the_learning_rate_warms_up_and_then_follows_a_cosine(tmp_path):
    session = OneWorker(tmp_path / "checkpoint")
    train(session, LineJob(params()))
    assert sorted(session.metrics) == list(range(1, 41))
    lr = [session.metrics[step]["lr"] for step in range(1, 41)]
    assert lr[:4] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    middle = 0.01 + 0.19 * 0.5 * (1 + math.cos(math.pi * 18 / 36))
    assert lr[22] == pytest.approx(middle)
    assert lr[4:] == sorted(lr[4:], reverse=True) and lr[-1] < 0.012
    assert session.metrics[40]["loss"] < 0.05 * session.metrics[1]["loss"]


def test_a_resumed_training_ends_with_the_same_weights_and_the_whole_history(tmp_path):
    whole = OneWorker(tmp_path / "whole")
    train(whole, LineJob(params()))
    with pytest.raises(KeyboardInterrupt):
        train(OneWorker(tmp_path / "stopped", stop_after=15), LineJob(params()))
    resumed = OneWorker(tmp_path / "stopped")
    train(resumed, LineJob(params()))
    assert min(resumed.metrics) == 16
    assert weight(tmp_path / "stopped") == weight(tmp_path / "whole")
    histories = [read_history(Store(tmp_path / name)) for name in ("stopped", "whole")]
    assert histories[0] == histories[1]
    assert [metrics["step"] for metrics in histories[0]] == list(range(1, 41))


def test_skipped_steps_are_counted_and_do_not_end_the_training(tmp_path):
    session = OneWorker(tmp_path / "checkpoint")
    train(session, LineJob(params(), broken=(3, 4, 9)))
    history = read_history(Store(tmp_path / "checkpoint"))
    assert [m["step"] for m in history if m["skipped"]] == [4, 5, 10]
    assert num_skipped_steps(history) == 3
    assert session.metrics[4]["skipped"] == 1 and session.metrics[6]["skipped"] == 0


@pytest.mark.parametrize("stop_after", [None, 15])
def test_too_many_skipped_steps_in_a_row_end_the_training(tmp_path, stop_after):
    """The count of consecutive steps survives a resume in the middle of them."""
    job = LineJob(params(), broken=(13, 14, 15))
    if stop_after is not None:
        with pytest.raises(KeyboardInterrupt):
            train(OneWorker(tmp_path / "checkpoint", stop_after), job)
    with pytest.raises(StageError, match="3 consecutive steps up to step 16; lower lr"):
        train(OneWorker(tmp_path / "checkpoint"), job)
    assert len(json.loads((tmp_path / "checkpoint" / HISTORY_FILE).read_text())) == 15


def test_an_error_in_the_data_reaches_the_training(tmp_path):
    class Unreadable(LineTask):
        def batches(self, step: int) -> torch.Tensor:
            if step == 2:
                raise OSError("row group 7 cannot be read")
            return super().batches(step)

    class Job(LineJob):
        def make_task(self, session: OneWorker) -> LineTask:
            return Unreadable(self)

    session = OneWorker(tmp_path / "checkpoint")
    with pytest.raises(OSError, match="row group 7"):
        train(session, Job(params()))
    assert sorted(session.metrics) == [1, 2]


def test_workers_must_divide_the_substreams():
    with pytest.raises(ValueError, match="num_workers = 3 does not divide substreams = 8"):
        params(substreams=8, num_workers=3)
