"""Every benchmark still runs: ``--smoke`` goes through all of its code on tiny sizes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LONG = dict.fromkeys(("full_size", "pretrain_step", "segment"), pytest.mark.exhaustive)
"They take over a minute: the first one runs six stages, each in a session of its own."
BENCHMARKS = [
    pytest.param(path, id=path.stem, marks=LONG.get(path.stem, ()))
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if "__main__" in path.read_text()
]
RATIO = re.compile(r"\d(\.\d+)?x ")


@pytest.mark.parametrize("path", BENCHMARKS)
def test_a_benchmark_runs_in_its_smallest_form_and_prints_a_ratio(path: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(path), "--smoke"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert RATIO.search(done.stdout), done.stdout
