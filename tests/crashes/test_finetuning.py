"""Fine-tunings whose driver and workers are killed with SIGKILL end as one that is undisturbed."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.checkpoint_files import checkpoints, step_of
from orchestration.manifest import Manifest, read_manifest
from orchestration.plan import latest_record
from orchestration.storage.store import Store
from pipelines.finetune.start_source import BEST_FILE
from tests.crashes.finetuning import write_inputs
from tests.crashes.test_trainings import ROOT, TIMEOUT_S, wait_for_step
from tests.line_training import traced

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_database")]

EMA_DECAY = 0.8


def start(inputs: Path, folder: Path, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.crashes.finetuning", str(inputs)),
            *(str(folder / "work"), str(folder / "traces"), json.dumps(options)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(inputs: Path, folder: Path, **options: object) -> None:
    process = start(inputs, folder, **options)
    try:
        output = process.communicate(timeout=TIMEOUT_S)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output


def output_of(workdir: Path, stage: str) -> Store:
    record = latest_record(Store(workdir))
    assert record is not None
    return Store(workdir / stage / record["stages"][stage])


def results(workdir: Path) -> tuple[bytes, Manifest, Manifest]:
    """Return the best weights, and the manifests of training and score."""
    trained = output_of(workdir, "finetune")
    score = read_manifest(output_of(workdir, "score"))
    return trained.read(BEST_FILE), read_manifest(trained), score


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


CLASSES = "image_classification"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("task", "ema_decay"),
    [
        pytest.param(CLASSES, None, id="weights"),
        pytest.param(CLASSES, EMA_DECAY, id="moving average"),
        pytest.param("detection", None, id="detection"),
        pytest.param("segmentation", None, id="segmentation"),
        pytest.param("mask2former", None, id="mask2former"),
    ],
)
def test_a_fine_tuning_that_is_killed_ends_with_the_same_weights_and_score(
    tmp_path, inputs, task, ema_decay
):
    settings = {"ema_decay": ema_decay}
    run(inputs, tmp_path / "calm", task=task, finetune=settings)
    weights, trained, score = results(tmp_path / "calm/work")
    assert trained.numbers["num_steps"] == 40

    folder, rng = tmp_path / "killed", random.Random(4)
    kills = [rng.randrange(3, 8), 16]  # at a random step; and after an evaluation is saved
    process = start(inputs, folder, task=task, finetune=settings, kill_at=kills)
    try:
        wait_for_step(folder, 2 * 20 + 2 * rng.randrange(12), process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    found = [step_of(each) for each in checkpoints(output_of(folder / "work", "finetune"))]
    assert found and max(found) < 40
    run(inputs, folder, task=task, finetune=settings)
    starts = {pid: step for step, _, pid in reversed(traced(folder / "traces"))}
    assert len(set(starts)) == 2 * 4, "two workers, started anew after each of three kills"

    again, trained_again, score_again = results(folder / "work")
    assert again == weights
    assert trained_again.numbers == trained.numbers
    assert score_again.numbers == score.numbers
