"""A download whose workers are killed and stopped: every row ends once, and no host stays blocked.

The workers, and the actor that limits requests per host, are real processes of a Ray session.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.downloads import check_that_every_row_ended_once

pytestmark = pytest.mark.slow

WORKER, LIMITER = "ray::MapWorker", "ray::ClusterHostLimiter"
LONGEST_STOP_S = 30.0
"Longer than the limiter waits for a silent worker."


def command(workdir: Path, num_rows: int) -> list[str]:
    settings = [
        f"miniweb={{num_cc3m: {num_rows}, num_cc12m: 1, num_classes: 1, num_images_per_class: 1, "
        "num_documents: 10}",
        "download.slice_rows=12",
        "download.max_connections=4",
        "download.hosts.max_concurrent_requests=1",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    return [
        *(sys.executable, "-m", "pipelines.cli", "run", "tiny", "--workdir", str(workdir)),
        *("--until", "download/cc3m", *words),
    ]


def processes(driver: int, name: str) -> list[psutil.Process]:
    """Return the running processes of a driver's Ray session whose title begins with a name."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith(name) and process.status() != psutil.STATUS_STOPPED:
            found.append(process)
    return found


def disturb(driver: int, rng: random.Random, kind: str, resuming: list[threading.Timer]) -> str:
    """Kill or stop one process of a download; return what was done, or an empty string."""
    name = LIMITER if kind == "kill the limiter" else WORKER
    found = processes(driver, name)
    if not found:
        return ""
    victim = rng.choice(found)
    if kind != "stop a worker":
        victim.send_signal(signal.SIGKILL)
        return kind

    def resume() -> None:
        if victim.is_running():
            victim.send_signal(signal.SIGCONT)

    victim.send_signal(signal.SIGSTOP)
    resuming.append(threading.Timer(rng.uniform(1, LONGEST_STOP_S), resume))
    resuming[-1].start()
    return kind


def parts(workdir: Path) -> int:
    return len(list(workdir.glob("download/cc3m/*/parts/*.json")))


def run_disturbed(workdir: Path, num_rows: int, kinds: list[str], rng: random.Random) -> None:
    """Run a download; disturb it once for each kind, after a new slice each time."""
    log = (workdir.parent / "log").open("a")
    resuming: list[threading.Timer] = []
    with log, subprocess.Popen(command(workdir, num_rows), stdout=log, stderr=log) as process:
        try:
            for kind in kinds:
                wanted = parts(workdir) + 1
                while parts(workdir) < wanted:
                    assert process.poll() is None, "it ended before it was disturbed"
                    time.sleep(0.05)
                time.sleep(rng.uniform(0, 1))
                while not disturb(process.pid, rng, kind, resuming):
                    assert process.poll() is None, "it ended before it was disturbed"
                    time.sleep(0.05)
            assert process.wait(timeout=500) == 0, (workdir.parent / "log").read_text()[-3000:]
        finally:
            for timer in resuming:
                timer.join()
            process.terminate()


@pytest.mark.parametrize(
    ("num_rows", "kinds"),
    [
        pytest.param(
            400,
            ["kill a worker", "stop a worker", "kill the limiter"],
            marks=pytest.mark.exhaustive,
            id="three times",
        ),
        pytest.param(1800, None, marks=pytest.mark.exhaustive, id="twenty times"),
    ],
)
def test_killed_and_stopped_workers_lose_no_row_and_block_no_host(tmp_path, num_rows, kinds):
    workdir, rng = tmp_path / "work", random.Random(7)
    if kinds is None:
        choices = ["kill a worker", "stop a worker", "kill the limiter"]
        kinds = [rng.choice(choices) for _ in range(20)]
    run_disturbed(workdir, num_rows, kinds, rng)
    check_that_every_row_ended_once(workdir)
