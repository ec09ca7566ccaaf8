"""Trainings whose workers, driver or machine are killed with SIGKILL, again and again.

No checkpoint that is not whole is loaded, and the result is that of an undisturbed training, bit by
bit: each worker of this training takes the whole batch, so it does not depend on their number.
"""

import io
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from orchestration.checkpoint_files import checkpoints, newest_whole, step_of
from orchestration.storage.store import Store
from orchestration.training_size import saved_now
from tests.crashes.counting import arm
from tests.crashes.test_trainings import (
    TIMEOUT_S,
    calm,
    stage_folder,
    start,
    undisturbed,
    wait_for_step,
    weight,
)
from tests.line_training import LineJob, params, slowly, trace, traced, workflow

__all__ = ["calm", "undisturbed"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_database")]

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


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
def test_a_worker_that_receives_sigterm_saves_a_checkpoint_and_is_replaced(tmp_path):
    traces, store = tmp_path / "traces", Store(tmp_path / "work")
    changes = {"steps": 200, "checkpoint_every": None, "keep_checkpoints": 9, "num_workers": 2}
    job = LineJob(params(**changes, max_failures=0), before=partial(terminated_at, traces))
    workflow(job).run(store, Console(file=io.StringIO()))
    saved, last = sorted(map(step_of, checkpoints(stage_folder(tmp_path / "work"))))
    assert 20 < saved < last == 200
    steps = [step for step, rank, _ in traced(traces) if rank == 1]
    assert steps == list(range(200)), "no step is lost"


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def newest_step(folder: Store) -> int:
    newest = newest_whole(folder)
    return 0 if newest is None else step_of(newest)


@pytest.mark.exhaustive
def test_a_lost_machine_is_gone_on_without_and_a_new_one_is_taken(tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    traces = tmp_path / "traces"
    environment = {
        "RAY_ADDRESS": cluster.address,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",  # the wait for the machine to come back
    }
    # No checkpoint is due by itself: each is saved because the test or Ray Train asks for it.
    changes = {"steps": 9000, "checkpoint_every": None, "num_workers": [1, 2]}

    def firsts(of: int) -> list[int]:
        """Return the first step of each process that was the worker of a rank."""
        found: dict[int, int] = {}
        for step, rank, pid in traced(traces):
            if rank == of:
                found.setdefault(pid, step)
        return list(found.values())

    def last() -> int:
        return [step for step, rank, _ in traced(traces) if rank == 0][-1]

    try:
        process = start(tmp_path, environment, **changes)
        wait_for_step(tmp_path, 2 * 20, process)
        folder = stage_folder(tmp_path / "work")
        saved_now(folder, partial(newest_step, folder))
        saved = newest_step(folder)
        cluster.remove_node(nodes[1], allow_graceful=False)
        wait_for(lambda: len(firsts(0)) == 2 and last() > firsts(0)[1] + 30, process)
        cluster.add_node(num_cpus=1)
        wait_for(lambda: len(firsts(0)) == 3 and len(firsts(1)) == 2, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finally:
        cluster.shutdown()
    two, one, two_again = firsts(0)
    assert two == 0 and one == saved > 0 and firsts(1) == [two, two_again]
    assert two_again > one + 30, "saved before the number changed"
