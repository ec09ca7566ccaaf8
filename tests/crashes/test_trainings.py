"""Trainings that are interrupted, damaged, or that fail: no step is lost, none is replayed in vain.

The training is a real process on Ray Train, and Ctrl-C reaches its whole process group as in a
terminal. The kills of the driver in ``tests/end_to_end`` complete these tests.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from orchestration.branches import Branch
from orchestration.checkpoint_files import checkpoints, newest_whole, step_of
from orchestration.errors import RecipeError, StageError, StoreError
from orchestration.integrity import damages, repair
from orchestration.manifest import MANIFEST, read_manifest
from orchestration.plan import State, latest_record
from orchestration.reporting.summary import status_table
from orchestration.storage.store import Store
from pipelines.training.history import read_curve
from tests.line_training import LineJob, params, trace, traced, workflow

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_database")]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900


def start(
    folder: Path, environment: Mapping[str, str] | None = None, **changes: object
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.line_training", str(folder / "work")),
            *(str(folder / "traces"), json.dumps(changes)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # the process group of a job in a terminal
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not (folder / "traces").exists() or len(traced(folder / "traces")) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stage_folder(workdir: Path) -> Store:
    record = latest_record(Store(workdir))
    assert record is not None
    return Store(workdir / "line" / record["stages"]["line"])


def status(workdir: Path) -> list[str]:
    record = latest_record(Store(workdir))
    assert record is not None
    table = status_table(Store(workdir), record)
    return ["".join(map(str, column.cells)) for column in table.columns]


def weight(checkpoint: Store) -> bytes:
    return checkpoint.read("weight.json")


def curve(folder: Store) -> dict[int, set[float]]:
    """Return the losses in MLflow by step."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    points: dict[int, set[float]] = {}
    run_id = json.loads(folder.read("mlflow_run.json"))["run_id"]
    for point in client.get_metric_history(run_id, "loss"):
        points.setdefault(point.step, set()).add(point.value)
    return points


@pytest.fixture(scope="module")
def calm(tmp_path_factory, one_database) -> Path:
    """Workdir of a complete training of 60 steps with the checkpoints 30, 45 and 60."""
    workdir = tmp_path_factory.mktemp("calm")
    run_again(Store(workdir))
    return workdir


@pytest.fixture(scope="module")
def undisturbed(calm) -> Store:
    """The last checkpoint of a training of 60 steps."""
    found = newest_whole(stage_folder(calm))
    assert found is not None and step_of(found) == 60
    return found


@pytest.fixture
def complete(calm, tmp_path) -> Store:
    """A copy of the workdir of a complete training."""
    return Store(shutil.copytree(calm, tmp_path, dirs_exist_ok=True))


def ctrl_c(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("num_workers", "send"),
    [
        pytest.param(1, ctrl_c, id="Ctrl-C", marks=pytest.mark.exhaustive),
        pytest.param(2, ctrl_c, id="Ctrl-C, two workers"),
        pytest.param(
            1,
            lambda pid: os.kill(pid, signal.SIGTERM),
            id="SIGTERM",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_an_interrupted_training_saves_its_step_and_the_next_run_continues_with_the_next_one(
    tmp_path, undisturbed, num_workers, send
):
    changes = {"steps": 60, "checkpoint_every": 1000, "num_workers": num_workers}
    process = start(tmp_path, **changes)
    wait_for_step(tmp_path, 12 * num_workers, process)
    send(process.pid)
    output = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode != 0
    found = re.search(
        r"line: stopped after step (\d+), the same command continues at step (\d+)", output
    )
    assert found, output
    step = int(found[1])
    assert 12 <= step < 60 and int(found[2]) == step + 1
    folder = stage_folder(tmp_path / "work")
    assert [step_of(c) for c in checkpoints(folder)] == [step]
    _, state, done, _ = status(tmp_path / "work")
    assert "interrupted" in state and done == f"{step}/60 steps"
    assert set(curve(folder)) == set(range(1, step + 1))

    process = start(tmp_path, **changes)
    output = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 0, output
    assert f"line: continues at step {step + 1}\n" in output
    steps = Counter((step, rank) for step, rank, _ in traced(tmp_path / "traces"))
    assert steps == Counter((s, rank) for s in range(60) for rank in range(num_workers))
    last = newest_whole(folder)
    assert last is not None and weight(last) == weight(undisturbed)
    rows = pa.concat_tables(read_curve(folder, last, print).tables()).to_pylist()
    history = {row["step"]: {row["loss"]} for row in rows}
    assert curve(folder) == history and len(history) == 60


@pytest.mark.exhaustive
def test_a_checkpoint_is_saved_before_a_node_is_lost_and_another_node_continues_from_it(tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    first = cluster.add_node(num_cpus=1)
    try:
        process = start(
            tmp_path,
            {"RAY_ADDRESS": cluster.address},
            steps=1500,
            checkpoint_every=None,
            keep_checkpoints=9,
        )
        wait_for_step(tmp_path, 12, process)
        cluster.add_node(num_cpus=1)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
            *("--address", cluster.address, "--node-id", first.node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
            *("--deadline-remaining-seconds", "30"),
        ]
        subprocess.run(command, check=True, timeout=TIMEOUT_S)
        output = process.communicate(timeout=3 * TIMEOUT_S)[0]
    finally:
        cluster.shutdown()
    assert process.returncode == 0, output
    last, saved = [step_of(c) for c in checkpoints(stage_folder(tmp_path / "work"))]
    by_process: dict[int, list[int]] = {}
    for step, _, pid in traced(tmp_path / "traces"):
        by_process.setdefault(pid, []).append(step)
    before, after = by_process.values()
    assert last == 1500 and after == list(range(saved, 1500))
    assert before[-1] >= saved - 1


def test_the_steps_after_the_newest_checkpoint_count_as_lost_after_a_kill(tmp_path):
    process = start(tmp_path, steps=1000, checkpoint_every=10)
    wait_for_step(tmp_path, 27, process)
    time.sleep(1.2)  # a heartbeat
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    def counts_whole_checkpoints() -> bool:
        _, state, done, _ = status(tmp_path / "work")
        newest = newest_whole(stage_folder(tmp_path / "work"))
        assert newest is not None and "interrupted" in state
        return done == f"{step_of(newest)}/1000 steps"

    # Ray's workers outlive the driver for a moment and may complete another checkpoint.
    deadline = time.monotonic() + 60
    while not counts_whole_checkpoints():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def flip_a_bit(folder: Store, path: str) -> None:
    data = bytearray(folder.read(path))
    data[len(data) // 2] ^= 1
    folder.write_bytes(path, bytes(data))


def run_again(store: Store) -> str:
    """Run the workflow of :func:`calm` and return what it says."""
    console = Console(file=io.StringIO(), soft_wrap=True)
    workflow(LineJob(params(steps=60, keep_checkpoints=3))).run(store, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_resume_uses_the_newest_checkpoint_that_is_whole_and_says_so(
    tmp_path, complete, undisturbed
):
    folder = stage_folder(tmp_path)
    folder.remove(MANIFEST)
    folder.remove("ray_train/step_00000060/__0_0.distcp")
    flip_a_bit(folder, "ray_train/step_00000045/history.json")
    folder.write_bytes("ray_train/step_00000030/__7_0.distcp", b"of a killed attempt")
    folder.write_bytes("ray_train/step_00000060/__7_0.distcp", b"of a killed attempt")
    output = run_again(complete)
    lines = [line for line in output.splitlines() if line.startswith("line: c")]
    assert lines == [
        "line: checkpoint step_00000060 is not used: __0_0.distcp is missing",
        "line: checkpoint step_00000045 is not used: the content of history.json has changed",
        "line: continues at step 31",
    ]
    last = newest_whole(folder)
    assert last is not None and step_of(last) == 60 and weight(last) == weight(undisturbed)
    names = {Path(file.path).name for file in read_manifest(folder).files}
    assert "__7_0.distcp" not in names and ".metadata" in names
    assert list(damages(folder)) == []


def test_a_repair_of_a_training_removes_only_what_is_damaged(tmp_path, complete, undisturbed):
    folder = stage_folder(tmp_path)
    flip_a_bit(folder, "ray_train/step_00000060/history.json")
    folder.write_bytes("ray_train/step_00000045/stray", b"")
    (damage,) = repair(folder)
    assert damage.path == "ray_train/step_00000060/history.json"
    assert [step_of(c) for c in checkpoints(folder)] == [45, 30]
    assert not folder.exists("ray_train/step_00000045/stray")
    assert "line: continues at step 46\n" in run_again(complete)
    last = newest_whole(folder)
    assert last is not None and weight(last) == weight(undisturbed)
    assert [p.state for p in workflow(LineJob(params(steps=60))).plan(complete)] == [State.FRESH]


def test_lost_metrics_leave_a_gap_and_repeat_no_step(tmp_path, complete):
    folder = stage_folder(tmp_path)
    (name,) = folder.names("history", ".parquet")
    flip_a_bit(folder, f"history/{name}")
    (damage,) = repair(folder)
    assert damage.path == f"history/{name}"
    output = run_again(complete)
    assert "line: all 60 steps are done" in output and "metrics" not in output
    assert folder.names("history", ".parquet") == [name] and list(damages(folder)) == []


def test_a_complete_training_goes_back_trains_on_and_is_complete_again(tmp_path, complete):
    traces, back = tmp_path / "traces", Branch(30, 100)
    folder = stage_folder(tmp_path)
    before = folder.read(MANIFEST)
    job = LineJob(params(steps=60, keep_checkpoints=3), before=partial(trace, traces))
    console = Console(file=io.StringIO(), soft_wrap=True)
    with pytest.raises(RecipeError, match="there are checkpoints of steps: 30, 45, 60"):
        workflow(job).run(complete, console, only="line", back=Branch(31, 0))
    workflow(job).run(complete, console, only="line", back=back)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "line: goes back to step 30; set aside: step_00000060, step_00000045\n" in output
    assert "line: continues at step 31\n" in output
    assert [step for step, _, _ in traced(traces)] == list(range(30, 60))
    assert [c.name for c in checkpoints(folder)] == [
        *("step_00000060_branch_1", "step_00000045_branch_1", "step_00000030")
    ]
    manifest = read_manifest(folder)
    assert manifest.numbers == {"num_times_back": 1, "num_steps_of_data_left_out": 100}
    paths = [file.path for file in manifest.files]
    assert "branches.json" in paths and "ray_train/step_00000060_branch_1/history.json" in paths
    rows = pq.read_table(tmp_path / "line" / folder.name / "history")
    assert rows["step"].to_pylist() == list(range(1, 61))
    assert folder.read(MANIFEST) != before and list(damages(folder)) == []
    assert [p.state for p in workflow(job).plan(complete)] == [State.FRESH]
    workflow(job).run(complete, console, only="line", back=back)
    assert len(traced(traces)) == 30, "the same command again trains nothing"


def test_a_training_whose_steps_are_all_done_starts_no_worker(tmp_path, complete):
    folder = stage_folder(tmp_path)
    before = folder.read(MANIFEST)
    folder.remove(MANIFEST)
    assert "line: all 60 steps are done\n" in run_again(complete)
    assert folder.read(MANIFEST) == before


ERRORS = {
    "none": lambda: None,
    "shape": lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
    "device": lambda: refuse(RuntimeError("CUDA error: device-side assert triggered (17)")),
    "store": lambda: refuse(StoreError("s3://b/k: 503")),
    "exit": lambda: os._exit(3),
}


def refuse(error: Exception) -> None:
    raise error


def failing(traces: Path, kind: str, num_times: int, step: int, rank: int) -> None:
    """Fail in a step the first times that it is reached."""
    trace(traces, step, rank)
    reached = [each for each, _, _ in traced(traces)]
    if step == 20 and reached.count(20) <= num_times:
        ERRORS[kind]()


def test_a_failure_that_would_come_again_ends_the_training_at_once(tmp_path):
    traces = tmp_path / "traces"
    job = LineJob(params(), before=partial(failing, traces, "shape", 9))
    with pytest.raises(StageError, match="RuntimeError: mat1 and mat2 shapes cannot") as error:
        workflow(job).run(Store(tmp_path / "work"), Console(file=io.StringIO()))
    assert "Traceback" not in str(error.value)
    assert [step for step, _, _ in traced(traces)] == list(range(21))


def test_a_diverged_training_ends_at_once(tmp_path):
    traces = tmp_path / "traces"
    job = LineJob(params(), broken=(20, 21, 22), before=partial(failing, traces, "none", 0))
    with pytest.raises(StageError, match="not finite in 3 consecutive steps up to step 23"):
        workflow(job).run(Store(tmp_path / "work"), Console(file=io.StringIO()))
    assert [step for step, _, _ in traced(traces)] == list(range(23))


def test_an_error_that_comes_a_second_time_in_the_same_words_ends_the_training(tmp_path):
    traces = tmp_path / "traces"
    job = LineJob(params(), before=partial(failing, traces, "device", 9))
    with pytest.raises(StageError, match="device-side assert"):
        workflow(job).run(Store(tmp_path / "work"), Console(file=io.StringIO()))
    assert [step for step, _, _ in traced(traces)] == [*range(21), *range(15, 21)]


@pytest.mark.parametrize("kind", ["store", "exit"])
def test_a_failure_that_passes_does_not_end_the_training(tmp_path, kind):
    traces, store = tmp_path / "traces", Store(tmp_path / "work")
    job = LineJob(params(), before=partial(failing, traces, kind, 2))
    workflow(job).run(store, Console(file=io.StringIO()))
    steps = [step for step, _, _ in traced(traces)]
    if kind == "store":
        assert steps == [*range(21), *range(15, 21), *range(15, 40)]
        return
    # A process that ends at once takes with it the checkpoint that it is writing.
    starts = [i for i, step in enumerate(steps) if not i or step <= steps[i - 1]]
    attempts = [steps[i:j] for i, j in zip(starts, [*starts[1:], None], strict=True)]
    firsts = [attempt[0] for attempt in attempts]
    assert firsts[0] == 0 and set(firsts) <= {0, 5, 10, 15} and firsts == sorted(firsts)
    assert attempts == [[*range(first, 21)] for first in firsts[:2]] + [[*range(firsts[2], 40)]]
