"""The training loop with a linear regression as its task: schedule, guard, history, resume.

Resume of the real trainings is tested beside them and in ``tests/end_to_end``.
"""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from orchestration.branches import Branch
from orchestration.checkpoint_files import checkpoints, step_of
from orchestration.errors import StageError
from orchestration.going_back import go_back
from orchestration.storage.store import Store
from pipelines.pretrain.params import Params
from pipelines.training.history import read_curve
from pipelines.training.loop import train
from tests.line_training import LineJob, LineTask, params
from tests.one_worker import OneWorker, last_checkpoint


def weight(folder: Path) -> float:
    [[value]] = json.loads(last_checkpoint(folder).read("weight.json"))
    return float(value)


def curve(folder: Path) -> pa.Table:
    """The rows of the newest checkpoint's history."""
    found = read_curve(Store(folder), last_checkpoint(folder), print)
    return pa.concat_tables(found.tables())


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
    histories = [curve(tmp_path / name) for name in ("stopped", "whole")]
    assert histories[0].equals(histories[1])
    assert histories[0]["step"].to_pylist() == list(range(1, 41))


def test_a_training_that_must_stop_saves_its_step_and_continues_with_the_next(tmp_path):
    whole = OneWorker(tmp_path / "whole")
    train(whole, LineJob(params()))
    stopped = OneWorker(tmp_path / "stopped", must_stop_after=7)
    train(stopped, LineJob(params()))
    assert max(stopped.metrics) == 7
    assert curve(tmp_path / "stopped").num_rows == 7
    resumed = OneWorker(tmp_path / "stopped")
    train(resumed, LineJob(params()))
    assert min(resumed.metrics) == 8
    assert weight(tmp_path / "stopped") == weight(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "saved"),
    [
        ({}, [15, 30, 40]),
        ({"checkpoint_every": None}, [40]),
        ({"checkpoint_every": None, "keep_every": 12}, [12, 24, 36, 40]),
        ({"checkpoint_every": 20, "keep_every": 30}, [20, 30, 40]),
    ],
)
def test_checkpoints_are_saved_at_multiples_and_after_the_last_step(tmp_path, changes, saved):
    train(OneWorker(tmp_path), LineJob(params(**changes)))
    assert sorted(step_of(c) for c in checkpoints(Store(tmp_path))) == saved


def test_a_training_that_is_asked_to_save_continues(tmp_path):
    session = OneWorker(tmp_path, save_after=(7, 8))
    train(session, LineJob(params()))
    assert sorted(step_of(c) for c in checkpoints(Store(tmp_path))) == [7, 8, 15, 30, 40]
    assert max(session.metrics) == 40


class Noting(LineJob):
    """Notes which step's data each step takes."""

    def make_task(self, session: OneWorker) -> LineTask:
        task, taken = LineTask(self), self.taken
        batches = task.batches

        def noted(step: int) -> torch.Tensor:
            taken.append(step)
            return batches(step)

        task.batches = noted  # type: ignore[method-assign]
        return task

    @property
    def taken(self) -> list[int]:
        return self.__dict__.setdefault("_taken", [])


def test_a_training_that_goes_back_leaves_data_out_and_keeps_its_schedule(tmp_path):
    train(OneWorker(tmp_path), LineJob(params()))
    before = curve(tmp_path)
    go_back(Store(tmp_path), Branch(15, 100), "line", lambda line: None)
    stopped, resumed = Noting(params()), Noting(params())
    with pytest.raises(KeyboardInterrupt):
        train(OneWorker(tmp_path, stop_after=30), stopped)
    train(OneWorker(tmp_path), resumed)
    assert stopped.taken[:15] == list(range(115, 130))
    assert resumed.taken == list(range(130, 140))
    after = curve(tmp_path)
    assert after["step"].to_pylist() == list(range(1, 41))
    assert after["lr"].equals(before["lr"])
    losses = [table["loss"].to_pylist() for table in (before, after)]
    assert losses[0][:15] == losses[1][:15] and losses[0][15] != losses[1][15]
    names = [c.name for c in checkpoints(Store(tmp_path))]
    assert names == ["step_00000040_branch_1", "step_00000030_branch_1", "step_00000015"]


def test_skipped_steps_are_counted_and_do_not_end_the_training(tmp_path):
    session = OneWorker(tmp_path / "checkpoint")
    train(session, LineJob(params(), broken=(3, 4, 9)))
    history = curve(tmp_path / "checkpoint")
    assert history.filter(pc.field("skipped") > 0)["step"].to_pylist() == [4, 5, 10]
    checkpoint = last_checkpoint(tmp_path / "checkpoint")
    assert read_curve(Store(tmp_path / "checkpoint"), checkpoint, print).num_skipped == 3
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
    assert step_of(last_checkpoint(tmp_path / "checkpoint")) == 15


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
    with pytest.raises(ValueError, match="num_workers = 3 does not divide substreams = 8"):
        params(substreams=8, num_workers=[2, 4])
    with pytest.raises(ValueError, match=r"num_workers = \[2, 1\]: the smaller number comes first"):
        params(num_workers=[2, 1])
    both = params(substreams=8, num_workers=[1, 2])
    assert (both.min_workers, both.max_workers, both.resources.num_workers) == (1, 2, 1)


def test_pretraining_may_have_any_number_of_workers_in_a_range():
    params = Params(num_workers=(3, 5))
    assert (params.min_workers, params.max_workers) == (3, 5)
    with pytest.raises(ValueError, match="num_workers = 300 is more than substreams = 256"):
        Params(num_workers=(2, 300))
    with pytest.raises(ValueError, match="num_workers = 3 does not divide substreams = 256"):
        Params(num_workers=3)
