"""A download that is killed repeatedly at random moments loses no row and duplicates none."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.downloads import check_that_every_row_ended_once

pytestmark = pytest.mark.exhaustive

RECIPE = "tiny"
SETTINGS = [
    "miniweb={num_cc3m: 1800, num_cc12m: 1, num_classes: 1, num_images_per_class: 1, "
    "num_documents: 10}",
    "download.slice_rows=12",
    "download.max_connections=4",
]
NUM_KILLS = 20


def command(workdir: Path) -> list[str]:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        sys.executable, "-m", "pipelines.cli", "run", str(RECIPE), "--workdir", str(workdir),
        "--until", "download/cc3m", *words,
    ]  # fmt: skip


def parts(workdir: Path) -> int:
    return len(list(workdir.glob("download/cc3m/*/parts/*.json")))


def run_and_kill(workdir: Path, new_parts: int, seconds: float) -> None:
    """Run until ``new_parts`` more slices are committed and ``seconds`` longer; kill the driver."""
    wanted = parts(workdir) + new_parts
    log = (workdir.parent / "log").open("a")
    with log, subprocess.Popen(command(workdir), stdout=log, stderr=log) as process:
        while parts(workdir) < wanted:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)


def test_twenty_kills_at_random_moments_lose_no_row(tmp_path):
    workdir, rng = tmp_path / "work", random.Random(1)
    for _ in range(NUM_KILLS):
        run_and_kill(workdir, rng.randint(1, 2), rng.uniform(0, 0.5))
    assert not list(workdir.glob("download/cc3m/*/manifest.json"))
    subprocess.run(command(workdir), check=True, capture_output=True, timeout=600)
    check_that_every_row_ended_once(workdir)
