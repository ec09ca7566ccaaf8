"""A workflow that is killed at any time resumes: same bytes, no slice lost or repeated.

Real processes on a Ray cluster of two nodes are killed with SIGKILL: the process that performs one
write of the commit protocol (before, during and after it), and at random times the driver, a
worker, or the raylet of a node. The output of the rerun is compared byte by byte with that of an
undisturbed run, on a disk and on an S3 server. A trial takes half a minute, so
``make test-exhaustive`` runs them; the kills in ``tests/end_to_end`` always run.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestration.manifest import read_parts
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
from tests.faulty import failing
from tests.s3 import BUCKET

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
NOT_OUTPUT = ("usage.json", "progress.json", "mlflow_run.json", "attempt.json")
POINTS = [
    f"{part}:{phase}"
    for part in ("stage.json", "data/", "rejects/", "parts/", "manifest.json", "total.json")
    for phase in ("before", "half", "after")
] + ["record.json:after", "mlflow_run.json:half", "usage.json:before"]
VICTIMS = ("driver", "worker", "raylet")


class Cluster:
    """A Ray cluster of two nodes on one machine, whose second node can be lost and replaced."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self.cluster = RayCluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "object_store_memory": 80 << 20,
                "_system_config": {  # a lost node is noticed in a second
                    "health_check_initial_delay_ms": 0,
                    "health_check_period_ms": 300,
                    "health_check_failure_threshold": 3,
                },
            },
        )
        self.second = self._add()
        # One database for all trials: creating one takes MLflow longer than a trial.
        self.environment = {
            "RAY_ADDRESS": self.cluster.address,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        }

    def _add(self):
        return self.cluster.add_node(num_cpus=1, object_store_memory=80 << 20)

    def kill_raylet(self) -> None:
        for process in self.second.all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)

    def replace_lost_node(self) -> None:
        """Replace the second node if it was lost."""
        if not self.second.remaining_processes_alive():
            self.cluster.remove_node(self.second, allow_graceful=False)
            self.second = self._add()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.cluster.shutdown()


class Trial:
    """One workdir and the processes that work on it."""

    def __init__(self, kind: str, folder: Path, endpoint: str, environment: dict[str, str]) -> None:
        self.endpoint = endpoint if kind == "s3" else ""
        self.folder = folder
        self.traces = folder / "traces"
        self.traces.mkdir(parents=True)
        root = f"s3://{BUCKET}/{uuid.uuid4().hex}" if kind == "s3" else str(folder / "work")
        self.store = Store(root, StorageParams(endpoint_url=self.endpoint or None))
        self.environment = os.environ | environment | {"PYTHONPATH": str(ROOT)}

    def start(self, run: str, point: str | None = None) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "tests.crashes.counting", self.store.uri, self.endpoint,
            str(self.traces), run, *([point] if point else []),
        ]  # fmt: skip
        log = (self.folder / f"{run}.log").open("wb")
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=log,
            stderr=log,
            # A background job of a shell ignores SIGINT, and its children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def finish(self, process: subprocess.Popen[bytes], run: str) -> int:
        code = process.wait(TIMEOUT_S)
        if code not in (0, -signal.SIGKILL):
            raise AssertionError((self.folder / f"{run}.log").read_text())
        return code

    def started(self, run: str) -> list[tuple[str, str, int]]:
        """Return (stage, slice, process id) of every slice that a run started, in order."""
        try:
            lines = (self.traces / "slices").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = [json.loads(line) for line in lines]
        return [(r["stage"], r["slice"], r["pid"]) for r in rows if r["run"] == run]

    def committed(self) -> set[tuple[str, str]]:
        """Return (stage, slice) of every committed part."""
        return {
            (stage, slice_id)
            for stage in ("numbers", "squares", "sums")
            for fingerprint in self.store.folders(stage)
            for slice_id in read_parts(self.store.sub(f"{stage}/{fingerprint}"))
        }

    def output(self) -> dict[str, bytes]:
        """Return the content of every file of an output by path."""
        return {
            path: self.store.read(path)
            for stage in ("numbers", "squares", "sums")
            for path, _ in self.store.walk(stage)
            if not path.endswith(NOT_OUTPUT)
        }


@pytest.fixture(params=["disk", "s3"])
def trial(request, tmp_path, s3_endpoint, cluster) -> Trial:
    cluster.replace_lost_node()
    return Trial(request.param, tmp_path, s3_endpoint, cluster.environment)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cluster) -> dict[str, bytes]:
    calm = Trial("disk", tmp_path_factory.mktemp("calm"), "", cluster.environment)
    assert calm.finish(calm.start("calm"), "calm") == 0
    done = Counter((stage, slice_) for stage, slice_, _ in calm.started("calm"))
    assert set(done.values()) == {1} and done.keys() == calm.committed()
    return calm.output()


def check_rerun(trial: Trial, undisturbed: dict[str, bytes]) -> None:
    """Run again, compare with the undisturbed run, and count the repeated slices."""
    before = trial.committed()
    assert trial.finish(trial.start("again"), "again") == 0
    assert trial.output() == undisturbed
    again = Counter((stage, slice_) for stage, slice_, _ in trial.started("again"))
    assert not again.keys() & before, "a committed slice was processed again"
    assert not again or set(again.values()) == {1}
    assert trial.committed() == {
        (path.split("/")[0], path.split("/")[-1].removesuffix(".json"))
        for path in undisturbed
        if "/parts/" in path
    }


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_write_of_the_commit_protocol(trial, undisturbed, point):
    process = trial.start("first", point)
    trial.finish(process, "first")
    assert (trial.traces / "crashed").exists(), "the write never happened"
    check_rerun(trial, undisturbed)


def kill_at_random(trial: Trial, cluster: Cluster, victim: str, rng: random.Random) -> None:
    """Kill the victim after some slices have started."""
    process = trial.start("first")
    wanted = rng.randrange(1, 24)
    deadline = time.monotonic() + TIMEOUT_S
    while len(trial.started("first")) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(rng.random() * 0.05)
    if victim == "driver":
        process.kill()
    elif victim == "raylet":
        cluster.kill_raylet()
    else:
        with contextlib.suppress(ProcessLookupError):  # the worker may have ended
            os.kill(trial.started("first")[-1][2], signal.SIGKILL)
    trial.finish(process, "first")


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_kill_at_a_random_time(trial, undisturbed, cluster, victim):
    kill_at_random(trial, cluster, victim, random.Random(victim))
    check_rerun(trial, undisturbed)


def test_occasional_store_failures_change_no_byte(tmp_path, s3_endpoint, cluster, undisturbed):
    cluster.replace_lost_node()
    with failing(s3_endpoint) as (proxy, endpoint):
        trial = Trial("s3", tmp_path, endpoint, cluster.environment)
        proxy.fail_randomly(0.05, seed=0)
        assert trial.finish(trial.start("first"), "first") == 0
        assert proxy.num_faults > 5
        proxy.choose = lambda method, path: None
        assert trial.output() == undisturbed


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("victim", VICTIMS)
def test_kills_at_many_random_times(trial, undisturbed, cluster, victim, number):
    kill_at_random(trial, cluster, victim, random.Random(f"{victim} {number}"))
    check_rerun(trial, undisturbed)
