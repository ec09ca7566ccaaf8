"""Order of stages, the effect of a failure, Ctrl-C, and an unreachable tracking server."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from mlflow import MlflowClient
from rich.console import Console

from orchestration import Context, Output, Recipe, Slice, Stage, Workflow
from orchestration.errors import LockError, StageError
from orchestration.params import StageParams
from orchestration.plan import State
from orchestration.recipe import ClusterParams, SliceParams, TrackingParams
from orchestration.storage.lock import LOCK, workdir_lock
from orchestration.storage.store import Store
from tests.crashes.test_crashes import Trial
from tests.s3 import free_port

pytestmark = pytest.mark.slow

QUIET = Console(file=io.StringIO())
RECIPE = Recipe(
    name="toy",
    cluster=ClusterParams(num_cpus=2, object_store_mb=128),
    slices=SliceParams(max_attempts=1),
)


class Params(StageParams):
    fails: bool = False


def stage(
    name: str,
    *inputs: str,
    fails: bool = False,
    meets: Path | None = None,
) -> Stage:
    """Return a stage of one slice that records when it began and ended.

    It ends after a second file has been written to the folder ``meets``, to which it writes one.
    """
    params = Params(fails=fails)

    def process(slice_: Slice) -> Output:
        began = time.time()
        if meets is not None:
            (meets / name).touch()
            while len(list(meets.iterdir())) < 2 and time.time() < began + 120:
                time.sleep(0.05)
        if fails:
            raise ValueError(f"{name} cannot")
        return Output(1, {"data": pa.table({"began": [began], "ended": [time.time()]})})

    def run(context: Context) -> None:
        slices = [Slice("0", {})]
        context.map_slices(slices, process, num_cpus=0.5)
        context.commit(slices)

    return Stage(name, run, params, {"in": inputs} if inputs else {})


def times(store: Store, plan, name: str) -> tuple[float, float]:
    from orchestration.dataset import Dataset

    (planned,) = [p for p in plan if p.stage.name == name]
    row = Dataset.open(store.sub(planned.path)).read().to_pylist()[0]
    return row["began"], row["ended"]


def test_independent_stages_run_at_the_same_time_if_requested(tmp_path):
    meets = tmp_path / "meets"
    meets.mkdir()
    both = stage("a", meets=meets), stage("b", meets=meets)
    together = Store(tmp_path / "together")
    plan = Workflow(RECIPE, (*both, stage("c", "a", "b"))).run(together, QUIET, jobs=2)
    a, b, c = (times(together, plan, name) for name in "abc")
    assert max(a[0], b[0]) < min(a[1], b[1])
    assert c[0] > max(a[1], b[1])
    alone = Store(tmp_path / "alone")
    plan = Workflow(RECIPE, (stage("a"), stage("b"))).run(alone, QUIET)
    assert times(alone, plan, "a")[1] < times(alone, plan, "b")[0]


def test_a_failure_stops_only_the_stages_that_depend_on_it(tmp_path):
    store = Store(tmp_path)
    flow = Workflow(
        RECIPE,
        (stage("bad", fails=True), stage("worse", "bad"), stage("good"), stage("better", "good")),
    )
    with pytest.raises(StageError, match="bad cannot"):
        flow.run(store, QUIET, jobs=2)
    assert [p.state for p in flow.plan(store)] == [
        State.INTERRUPTED,
        State.MISSING,
        State.FRESH,
        State.FRESH,
    ]
    assert not store.exists(LOCK)


def test_a_locked_workdir_is_not_changed(tmp_path):
    store = Store(tmp_path)
    flow = Workflow(RECIPE, (stage("a"),))
    with workdir_lock(store), pytest.raises(LockError, match="locked by process"):
        flow.run(store, QUIET)
    assert [path for path, _ in store.walk()] == []


def test_an_unreachable_tracking_server_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(tmp_path)
    unreachable = TrackingParams(uri=f"http://127.0.0.1:{free_port()}")
    recipe = RECIPE.model_copy(update={"tracking": unreachable})
    Workflow(recipe, (stage("a"),)).run(store, QUIET)
    log = next(Path(store.native_path("logs")).glob("*.log")).read_text()
    assert "opened no run for a yet" in log and "did not accept" in log


def test_damaged_inputs_are_found_on_request_and_repaired(tmp_path):
    from orchestration.errors import ManifestError
    from orchestration.integrity import repair

    store = Store(tmp_path)
    flow = Workflow(RECIPE, (stage("a"), stage("b", "a")))
    plan = flow.run(store, QUIET, until="a")
    folder = store.sub(plan[0].path)
    manifest = json.loads(folder.read("manifest.json"))
    path = manifest["parts"][0]["tables"]["data"]["path"]
    data = bytearray(folder.read(path))
    data[len(data) // 2] ^= 1
    folder.write_bytes(path, bytes(data))
    with pytest.raises(ManifestError, match=f"{path}: content differs"):
        flow.run(store, QUIET, verify=True)
    assert [damage.path for damage in repair(folder)] == [path]
    assert [p.state for p in flow.plan(store)] == [State.INTERRUPTED, State.INTERRUPTED]
    flow.run(store, QUIET, verify=True)
    again = json.loads(folder.read("manifest.json"))
    assert again["parts"][0]["slice"] == manifest["parts"][0]["slice"]
    assert [p.state for p in flow.plan(store)] == [State.FRESH] * 2


def test_ctrl_c_keeps_committed_slices_and_marks_the_runs_killed(tmp_path):
    trial = Trial("disk", tmp_path, "", {})
    process = trial.start("first")
    deadline = time.monotonic() + 90
    while len(trial.started("first")) < 4:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) not in (0, -signal.SIGKILL)
    committed = trial.committed()
    assert committed and not trial.store.exists(LOCK)
    client = MlflowClient(f"sqlite:///{trial.store.native_path('mlflow.db')}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "beit3"]
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert {r.info.status for r in runs.values()} == {"KILLED"}

    assert trial.finish(trial.start("again"), "again") == 0
    assert not {(s, slice_) for s, slice_, _ in trial.started("again")} & committed
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert set(runs) == {"counting", "numbers", "squares", "sums"}
    assert runs["numbers"].data.tags["attempt"] == "2"
    assert runs["numbers"].data.tags["resumed_from"].startswith("attempt 1, KILLED, ended 20")
    (dataset,) = [entry.dataset for entry in runs["sums"].inputs.dataset_inputs]
    assert dataset.name == "squares" and len(dataset.digest) == 36


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path):
    script = (
        "import os, signal, sys, threading, time\n"
        "from orchestration.stage_threads import ending_at_once\n"
        "with ending_at_once():\n"
        "    sys.stdout.write('ready'); sys.stdout.flush()\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None and process.stdout.read(5) == b"ready"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
