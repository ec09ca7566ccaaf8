"""A full-size recipe with ``--shrink`` runs to the end on a CPU."""

import subprocess
import sys

import pytest

from orchestration.manifest import MANIFEST
from orchestration.plan import latest_record
from orchestration.storage.store import Store


@pytest.mark.slow
def test_the_base_recipe_shrunk_runs_to_the_end(tmp_path):
    workdir = tmp_path / "work"
    command = [
        sys.executable, "-m", "pipelines.cli", "run", "base", "--shrink",
        "--workdir", str(workdir),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = latest_record(Store(workdir))["stages"]
    assert {"import/visual_genome", "download/sbu", "import/flickr30k", "export"} <= stages.keys()
    for name, fingerprint in stages.items():
        assert (workdir / name / fingerprint / MANIFEST).exists(), name
