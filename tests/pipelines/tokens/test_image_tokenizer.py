"""Training and examining the image tokenizer, with the tiny recipe's own settings, without Ray."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from dataprep.images import encode_jpeg
from dataprep.miniweb.drawing import draw
from dataprep.miniweb.grammar import random_scene
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.tokens.codebook_report import MAPS_FILE, REPORT_FILE, SHEET_FILE, Examination
from pipelines.tokens.image_tokenizer import Params, check_floors, examine_model
from pipelines.tokens.vqkd_training import MODEL_FILE, Job, train_loop
from tests.committing import commit_tables
from tokenizer.vqkd import VQKD

RECIPE = Path(__file__).parents[3] / "pipelines" / "recipes" / "tiny.yaml"
NUM_IMAGES = 320
STEPS = 90
SOURCES = ["cc3m", "imagenet21k"]


class OneWorker:
    """A session of one worker whose checkpoints lie in a folder."""

    rank, num_workers, num_threads, device = 0, 1, 2, torch.device("cpu")

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        self.folder, self.stop_after = folder, stop_after
        self.metrics: dict[int, Mapping[str, float]] = {}

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        yield self.folder if self.folder.exists() else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        self.folder.mkdir(exist_ok=True)
        write(self.folder)
        if step == self.stop_after:
            raise KeyboardInterrupt

    def show(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        self.metrics[done] = metrics


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Drawn images of two sources, and what curation kept of them."""
    store = Store(tmp_path_factory.mktemp("corpus"))
    rng = np.random.default_rng(0)
    images, half = [], NUM_IMAGES // 2
    for source in SOURCES:
        drawn = [draw(random_scene(rng), 120, 96, rng) for _ in range(half)]
        table = pa.table({
            "sample_id": [f"{source}/{i}" for i in range(half)],
            "jpeg": [encode_jpeg(pixels, 95) for pixels in drawn],
        })  # fmt: skip
        images.append(commit_tables(store.sub(source), [table], row_group_rows=32))
    places = pa.table({"dataset": np.repeat([0, 1], half), "row": np.tile(np.arange(half), 2)})
    kept = commit_tables(store.sub("kept"), [places], row_group_rows=64)
    return [kept], images


def params(**changes: object) -> Params:
    section = yaml.safe_load(RECIPE.read_text())["image_tokenizer"]
    return Params.model_validate({**section, "steps": STEPS, "checkpoint_every": 30, **changes})


def trained(corpus, folder: Path, chosen: Params, stop_after: int | None = None) -> OneWorker:
    session = OneWorker(folder, stop_after)
    train_loop(session, Job(chosen, Store(folder), 0, *corpus, SOURCES))
    return session


def examined(corpus, folder: Path, chosen: Params, out: Store) -> dict[str, float]:
    what = Examination(*corpus, SOURCES, 128, chosen.min_scale, 0)
    return examine_model(out, Store(folder), MODEL_FILE, chosen, what)


@pytest.mark.slow
def test_the_tiny_codebook_is_healthy_and_reported_by_source(corpus, tmp_path):
    session = trained(corpus, tmp_path / "checkpoint", params())
    out = Store(tmp_path / "out")
    numbers = examined(corpus, tmp_path / "checkpoint", params(), out)
    check_floors(params(min_usage=0.6, min_cosine=0.5), numbers)
    assert numbers["code_perplexity"] > 20
    report = json.loads(out.read(REPORT_FILE))
    assert report["dead_codes"] == round((1 - report["code_usage"]) * 128)
    assert {f"code_usage/{s}" for s in SOURCES} < report.keys()
    assert sum(report["histogram"]) == pytest.approx(1)
    assert report["histogram"] == sorted(report["histogram"], reverse=True)
    for name in (MAPS_FILE, SHEET_FILE):
        assert cv2.imread(out.native_path(name)).std() > 10
    epochs = [step for step, m in session.metrics.items() if "epoch/code_usage/cc3m" in m]
    assert epochs == list(range(10, STEPS + 1, 10))  # 320 images are ten batches of 32
    with pytest.raises(StageError, match="reaches a cosine of"):
        check_floors(params(min_cosine=1), numbers)


@pytest.mark.slow
def test_without_revival_and_k_means_it_collapses_and_the_floor_stops_the_stage(corpus, tmp_path):
    chosen = params(kmeans=False, dead_code_threshold=0)
    trained(corpus, tmp_path / "checkpoint", chosen)
    numbers = examined(corpus, tmp_path / "checkpoint", chosen, Store(tmp_path / "out"))
    assert numbers["code_usage"] < 0.4
    with pytest.raises(StageError, match=r"uses .* of its codes .* larger dead_code_threshold"):
        check_floors(chosen, numbers)


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_with_the_same_codebook(corpus, tmp_path):
    chosen = params(steps=40, checkpoint_every=20)
    trained(corpus, tmp_path / "whole", chosen)
    with pytest.raises(KeyboardInterrupt):
        trained(corpus, tmp_path / "stopped", chosen, stop_after=20)
    session = trained(corpus, tmp_path / "stopped", chosen)
    assert min(session.metrics) == 21
    states = [VQKD.load(tmp_path / name / MODEL_FILE).state_dict() for name in ("whole", "stopped")]
    assert all((states[0][key] == states[1][key]).all() for key in states[0])


def test_a_given_tokenizer_is_taken_and_examined_without_a_teacher(corpus, tmp_path):
    config = params().config(teacher_dim=11)
    tokenizer = VQKD(config)
    tokenizer.quantize.embedding.weight.normal_()
    tokenizer.save(tmp_path / "given.pth")
    chosen = params(weights=str(tmp_path / "given.pth"), teacher="clip")
    out = Store(tmp_path / "out")
    what = Examination(*corpus, SOURCES, 32, chosen.min_scale, 0)
    numbers = examine_model(out, Store(tmp_path), "given.pth", chosen, what)
    assert "teacher_cosine" not in numbers and numbers["code_usage"] > 0
    assert VQKD.load(out.native_path(MODEL_FILE)).config == config
