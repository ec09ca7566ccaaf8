"""A study whose driver is killed in its second run goes on there, under one MLflow run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestration.checkpoint_files import newest_whole
from orchestration.manifest import MANIFEST
from orchestration.plan import IDENTITY
from orchestration.recipe_text import dump_recipe
from orchestration.storage.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

STUDY = {
    "name": "small",
    "recipe": "tiny",
    "changes": {
        "miniweb": {
            "num_cc3m": 120, "num_cc12m": 90, "num_classes": 4, "num_images_per_class": 20,
            "num_documents": 200,
        },
        "text_tokenizer": {"vocab_size": 120},
        "text_tokens": {"row_group_rows": 16},
        "image_tokens": {"row_group_rows": 8},
        "pair_tokens": {"row_group_rows": 8},
        "image_tokenizer": {"steps": 12, "warmup_steps": 2, "checkpoint_every": 6, "min_usage": 0},
        "train": {"steps": 60, "warmup_steps": 20, "checkpoint_every": 4},
    },
    "variants": {"separate": {}, "joint": "ablations/joint-masking"},
    "seeds": [0, 1],
    "metrics": ["grounding/words/gap", "accuracy/mlm"],
}  # fmt: skip
SHARED = ("download/cc3m", "import/imagenet21k", "curate", "image_tokenizer", "image_tokens",
          "pair_tokens", "text_tokens")  # fmt: skip
TIMEOUT_S = 1500


def manifests(workdir: Path, stage: str) -> dict[str, float]:
    """When each output of a stage was committed, by its path."""
    return {str(path): path.stat().st_mtime for path in workdir.glob(f"{stage}/*/{MANIFEST}")}


def begun(workdir: Path) -> list[Store]:
    """Trainings that are not complete and have a checkpoint."""
    folders = [Store(path) for path in workdir.glob("pretrain/*") if (path / IDENTITY).exists()]
    return [f for f in folders if not f.exists(MANIFEST) and newest_whole(f, read=False)]


def test_a_killed_study_goes_on_and_makes_what_is_shared_once(tmp_path):
    workdir, study = tmp_path / "work", tmp_path / "small.yaml"
    study.write_bytes(dump_recipe(STUDY))
    command = [
        sys.executable, "-m", "pipelines.cli", "sweep", str(study), "--workdir", str(workdir),
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT_S
        while not (manifests(workdir, "evaluate") and begun(workdir)):
            assert process.poll() is None and time.monotonic() < deadline, (
                tmp_path / "log"
            ).read_text()
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = {stage: manifests(workdir, stage) for stage in (*SHARED, "pretrain", "evaluate")}
    assert [len(found) for found in before.values()] == [1] * len(before)
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in SHARED:
        assert manifests(workdir, stage) == before[stage]
    after = manifests(workdir, "pretrain")
    assert len(after) == 4 and before["pretrain"].items() <= after.items()
    check_runs(workdir)
    (page,) = workdir.glob("studies/*/comparison.html")
    assert "grounding/words/gap" in page.read_text() and "loss/mlm" in page.read_text()


def check_runs(workdir: Path) -> None:
    """One run of the study, which has ended, and below it those of the four workflows."""
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    experiment = client.get_experiment_by_name("beit3")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (study,) = (run for run in runs if run.info.run_name == "small")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    assert {run.info.run_name for run in children} == {
        f"small: {masking}, seed {seed}" for masking in ("separate", "joint") for seed in (0, 1)
    }
    assert len(children) == 4
    assert {run.info.status for run in (study, *children)} == {"FINISHED"}
    assert study.data.tags["attempt"] == "2"
    names = {artifact.path for artifact in client.list_artifacts(study.info.run_id)}
    assert names == {"study.yaml", "comparison.html", "comparison.csv"}
