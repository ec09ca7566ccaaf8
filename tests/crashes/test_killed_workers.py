"""Trainings whose workers, driver or machine are killed with SIGKILL, again and again.

No checkpoint that is not whole is loaded, and the result is that of an undisturbed training, bit by
bit: each worker of this training takes the whole batch, so it does not depend on their number.
"""

import io
import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from orchestration.checkpoint_files import checkpoints, newest_whole, step_of
from orchestration.storage.store import Store
from tests.crashes.counting import arm
from tests.crashes.test_trainings import (
    TIMEOUT_S,
    stage_folder,
    start,
    tracking,
    undisturbed,
    wait_for_step,
    weight,
)
from tests.line_training import LineJob, params, slowly, trace, traced, workflow

__all__ = ["tracking", "undisturbed"]

pytestmark = pytest.mark.slow

POINTS = [
    "step_00000030/__0_0.distcp:half",
    "step_00000040/.metadata:before",
    "step_00000040/files-00001:before",
    "step_00000050/files-00000:half",
]
"Writes of checkpoints at which the worker that performs them kills itself, once each."


def killed_while_writing(traces: Path, step: int, rank: int) -> None:
    """Kill this worker in the background at the next of the points that is left."""
    trace(traces, step, rank)
    left = [i for i in range(len(POINTS)) if not (traces.parent / f"point-{i}/crashed").exists()]
    if left:
        folder = traces.parent / f"point-{left[0]}"
        folder.mkdir(exist_ok=True)
        arm(folder, POINTS[left[0]])


def test_a_checkpoint_that_a_kill_left_half_written_is_never_loaded(tmp_path, undisturbed):
    traces, store = tmp_path / "traces", Store(tmp_path / "work")
    changes = {"steps": 60, "checkpoint_every": 10, "num_workers": 2, "max_failures": 9}
    job = LineJob(params(**changes), before=partial(killed_while_writing, traces))
    workflow(job).run(store, Console(file=io.StringIO()))
    assert all((tmp_path / f"point-{i}/crashed").exists() for i in range(len(POINTS)))
    starts: dict[int, int] = {}
    for step, rank, pid in traced(traces):
        if rank == 0:
            starts.setdefault(pid, step)
    assert list(starts.values()) == [0, 20, 30, 30, 40]
    last = newest_whole(stage_folder(tmp_path / "work"))
    assert last is not None and step_of(last) == 60 and weight(last) == weight(undisturbed)


def killed_at(traces: Path, steps: list[int], step: int, rank: int) -> None:
    """Kill this worker when it reaches a step for the first time."""
    slowly(traces, step, rank)
    reached = [each for each, _, _ in traced(traces) if each == step]
    if step in steps and len(reached) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_are_killed_at_random_steps_end_with_the_same_weights(tmp_path, undisturbed):
    traces, store = tmp_path / "traces", Store(tmp_path / "work")
    steps = sorted(random.Random(7).sample(range(8, 60), 3))
    changes = {"steps": 60, "checkpoint_every": 7, "num_workers": 2, "max_failures": 3}
    job = LineJob(params(**changes), before=partial(killed_at, traces, steps))
    workflow(job).run(store, Console(file=io.StringIO()))
    last = newest_whole(stage_folder(tmp_path / "work"))
    assert last is not None and step_of(last) == 60 and weight(last) == weight(undisturbed)


def test_a_driver_that_is_killed_continues_with_other_numbers_of_workers(tmp_path, undisturbed):
    changes = {"steps": 60, "checkpoint_every": 5, "keep_checkpoints": 9}
    for num_workers, kill_after in ((2, 17), (1, 14), (2, None)):
        done = len(traced(tmp_path / "traces")) if (tmp_path / "traces").exists() else 0
        process = start(tmp_path, **changes, num_workers=num_workers)
        if kill_after is not None:
            wait_for_step(tmp_path, done + num_workers * kill_after, process)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        else:
            output = process.communicate(timeout=TIMEOUT_S)[0]
            assert process.returncode == 0, output
    last = newest_whole(stage_folder(tmp_path / "work"))
    assert last is not None and step_of(last) == 60 and weight(last) == weight(undisturbed)


def terminated_at(traces: Path, step: int, rank: int) -> None:
    """Send SIGTERM to the second worker when it reaches step 20 for the first time."""
    slowly(traces, step, rank)
    reached = [each for each, of, _ in traced(traces) if each == step and of == rank]
    if step == 20 and rank == 1 and len(reached) == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_that_receives_sigterm_saves_a_checkpoint_and_is_replaced(tmp_path):
    traces, store = tmp_path / "traces", Store(tmp_path / "work")
    changes = {"steps": 200, "checkpoint_every": None, "keep_checkpoints": 9, "num_workers": 2}
    job = LineJob(params(**changes, max_failures=0), before=partial(terminated_at, traces))
    workflow(job).run(store, Console(file=io.StringIO()))
    saved, last = sorted(map(step_of, checkpoints(stage_folder(tmp_path / "work"))))
    assert 20 < saved < last == 200
    steps = [step for step, rank, _ in traced(traces) if rank == 1]
    assert steps == list(range(200)), "no step is lost"
