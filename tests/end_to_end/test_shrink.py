"""A full-size recipe with ``--shrink`` runs to the end on a CPU."""

import subprocess
import sys

import pytest

from orchestration.manifest import MANIFEST
from orchestration.plan import latest_record
from orchestration.storage.store import Store


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "some_stages"),
    [
        ("base", {"import/visual_genome", "download/sbu", "import/flickr30k", "export"}),
        ("small", {"download/own_pairs", "import/own_images", "documents/own_text", "export"}),
    ],
)
def test_a_shrunk_recipe_runs_to_the_end(tmp_path, recipe, some_stages):
    workdir = tmp_path / "work"
    command = [
        sys.executable, "-m", "pipelines.cli", "run", recipe, "--shrink",
        "--workdir", str(workdir),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = latest_record(Store(workdir))["stages"]
    assert some_stages <= stages.keys()
    for name, fingerprint in stages.items():
        assert (workdir / name / fingerprint / MANIFEST).exists(), name
