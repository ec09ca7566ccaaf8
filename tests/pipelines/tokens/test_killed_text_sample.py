"""A text tokenizer whose driver is killed in its rounds ends with the bytes of an undisturbed run.

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
ROUNDS = ("count-documents", "lines-0-captions")
"Beginnings of the slice ids after whose first part the driver is killed."


def start(workdir: Path) -> subprocess.Popen:
    log = (workdir.parent / f"{workdir.name}.log").open("a")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipelines.tokens.drawing", str(workdir)],
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
    found = workdir.glob(f"text_tokenizer/*/parts/{of_round}*.json")
    return {path.name: path.stat().st_mtime_ns for path in found}


def output(workdir: Path) -> dict[str, bytes]:
    (folder,) = (workdir / "text_tokenizer").iterdir()
    store = Store(folder)
    return {path: store.read(path) for path, _ in store.walk() if not path.endswith(NOT_OUTPUT)}


def test_a_text_tokenizer_that_is_killed_ends_as_an_undisturbed_one(tmp_path):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    finish(calm)
    kept: dict[str, int] = {}
    for of_round in ROUNDS:
        process = start(killed)
        deadline = time.monotonic() + TIMEOUT_S
        while not parts(killed, of_round):
            assert process.poll() is None, f"it ended before {of_round}"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        now = parts(killed)
        assert kept.items() <= now.items(), "a committed slice was repeated"
        kept = now
    assert any(name.startswith("count") for name in kept)
    finish(killed)
    assert output(killed) == output(calm)
    assert not parts(killed)
