"""Curation whose driver is killed in its rounds ends with the bytes of an undisturbed run.

Real processes are killed with SIGKILL; the rerun must not repeat a committed slice.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.storage.store import Store
from tests.crashes.test_crashes import NOT_OUTPUT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 240
SOME = ("features", "edges", "0000")
"Beginnings of the slice ids of rounds after whose first part the driver is killed."
ALL = ("features", "equal", "leaders", "hash-pairs", "candidates", "edges", "resolve", "captions")


def start(workdir: Path) -> subprocess.Popen:
    log = (workdir.parent / f"{workdir.name}.log").open("a")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipelines.curate.curating", str(workdir)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=log,
        stderr=log,
    )


def finish(workdir: Path) -> None:
    process = start(workdir)
    assert process.wait(TIMEOUT_S) == 0, (workdir.parent / f"{workdir.name}.log").read_text()


def parts(workdir: Path, of_round: str = "") -> dict[str, int]:
    """Return when each part of a round was written."""
    found = workdir.glob(f"curate/*/parts/{of_round}*.json")
    return {path.name: path.stat().st_mtime_ns for path in found}


def output(workdir: Path) -> dict[str, bytes]:
    (folder,) = (workdir / "curate").iterdir()
    store = Store(folder)
    return {path: store.read(path) for path, _ in store.walk() if not path.endswith(NOT_OUTPUT)}


@pytest.mark.parametrize("rounds", [SOME, pytest.param(ALL, marks=pytest.mark.exhaustive)])
def test_a_curation_that_is_killed_ends_as_an_undisturbed_one(tmp_path, rounds):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    finish(calm)
    for of_round in rounds:
        process = start(killed)
        deadline = time.monotonic() + TIMEOUT_S
        while not parts(killed, of_round):
            assert process.poll() is None, f"it ended before {of_round}"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = parts(killed, "0000")
    finish(killed)
    after = parts(killed, "0000")
    assert bool(before) == ("0000" in rounds)
    assert before == {name: after[name] for name in before}
    assert output(killed) == output(calm)
