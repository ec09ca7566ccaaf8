"""A full-size recipe with ``--shrink`` runs to the end on a CPU, with the outputs on record."""

import subprocess
import sys

import pytest
from rich.console import Console

from orchestration.manifest import MANIFEST
from orchestration.plan import latest_record
from orchestration.storage.store import Store
from pipelines.open_recipe import open_recipe


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("recipe", "some_stages"),
    [
        ("base", {"import/visual_genome", "download/sbu", "import/flickr30k", "export"}),
        ("small", {"download/own_pairs", "import/own_images", "documents/own_text", "export"}),
    ],
)
def test_a_shrunk_recipe_runs_to_the_end(tmp_path, recipe, some_stages, check_stage_outputs):
    workdir = tmp_path / "work"
    command = [
        sys.executable, "-m", "pipelines.cli", "run", recipe, "--shrink",
        "--workdir", str(workdir),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = latest_record(Store(workdir))["stages"]
    assert some_stages <= stages.keys()
    for name, fingerprint in stages.items():
        assert (workdir / name / fingerprint / MANIFEST).exists(), name
    opened = open_recipe(recipe, str(workdir), [], Console(quiet=True), shrink=True)
    check_stage_outputs(f"{recipe} --shrink", workdir, opened.workflow.stages)
