"""Training and report of the image tokenizer with the tiny recipe's parameters, without Ray."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from dataprep.images import encode_jpeg
from dataprep.miniweb.drawing import draw
from dataprep.miniweb.grammar import random_scene
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.tokens.codebook_report import MAPS_FILE, PATCHES_FILE, REPORT_FILE, ReportImages
from pipelines.tokens.given_weights import num_codes_of
from pipelines.tokens.image_tokenizer import Params, check_minimums, requires, store_and_report
from pipelines.tokens.vqkd_training import MODEL_FILE, VQKDJob
from pipelines.training.loop import train
from tests.committing import commit_tables
from tests.one_file import serving
from tests.one_worker import OneWorker, last_checkpoint
from tests.scripted import scripted
from tokenizer.vqkd import VQKD, VQKDConfig

RECIPE = Path(__file__).parents[3] / "pipelines" / "recipes" / "tiny.yaml"
NUM_IMAGES = 320
STEPS = 90
SOURCES = ["cc3m", "imagenet21k"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Drawn images of two sources, all of which curation kept."""
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
    locations = pa.table({"dataset": np.repeat([0, 1], half), "row": np.tile(np.arange(half), 2)})
    kept = commit_tables(store.sub("kept"), [locations], row_group_rows=64)
    return [kept], images


def params(**changes: object) -> Params:
    section = yaml.safe_load(RECIPE.read_text())["image_tokenizer"]
    return Params.model_validate({**section, "steps": STEPS, "checkpoint_every": 30, **changes})


def trained(corpus, folder: Path, chosen: Params, stop_after: int | None = None) -> OneWorker:
    session = OneWorker(folder, stop_after)
    train(session, VQKDJob(chosen, Store(folder), 0, True, *corpus, SOURCES))
    return session


def reported(corpus, folder: Path, chosen: Params, out: Store) -> dict[str, float]:
    chosen_images = ReportImages(*corpus, SOURCES, 128, chosen.min_crop_scale, 0, True)
    return store_and_report(out, last_checkpoint(folder), MODEL_FILE, chosen, chosen_images)


@pytest.mark.slow
def test_the_tiny_recipe_uses_most_codes_and_the_report_counts_each_source(corpus, tmp_path):
    session = trained(corpus, tmp_path / "checkpoint", params())
    out = Store(tmp_path / "out")
    numbers = reported(corpus, tmp_path / "checkpoint", params(), out)
    check_minimums(params(min_usage=0.6, min_cosine=0.5), numbers)
    assert numbers["codebook_perplexity"] > 20
    report = json.loads(out.read(REPORT_FILE))
    assert report["num_dead_codes"] == round((1 - report["codebook_usage"]) * 128)
    assert {f"codebook_usage/{s}" for s in SOURCES} < report.keys()
    assert sum(report["histogram"]) == pytest.approx(1)
    assert report["histogram"] == sorted(report["histogram"], reverse=True)
    for name in (MAPS_FILE, PATCHES_FILE):
        assert cv2.imread(out.native_path(name)).std() > 10
    epochs = [step for step, m in session.metrics.items() if "epoch/codebook_usage/cc3m" in m]
    assert epochs == list(range(10, STEPS + 1, 10))  # 320 images are ten batches of 32
    with pytest.raises(StageError, match=r"reaches a cosine of .* min_cosine"):
        check_minimums(params(min_cosine=1), numbers)


@pytest.mark.slow
def test_a_codebook_without_k_means_and_replacement_collapses_and_is_refused(corpus, tmp_path):
    chosen = params(kmeans=False, dead_code_threshold=0)
    trained(corpus, tmp_path / "checkpoint", chosen)
    numbers = reported(corpus, tmp_path / "checkpoint", chosen, Store(tmp_path / "out"))
    assert numbers["codebook_usage"] < 0.4
    with pytest.raises(StageError, match=r"uses .* of its codes .* larger dead_code_threshold"):
        check_minimums(chosen, numbers)


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_codebook(corpus, tmp_path):
    chosen = params(steps=40, checkpoint_every=20)
    trained(corpus, tmp_path / "whole", chosen)
    with pytest.raises(KeyboardInterrupt):
        trained(corpus, tmp_path / "stopped", chosen, stop_after=20)
    session = trained(corpus, tmp_path / "stopped", chosen)
    assert min(session.metrics) == 21
    last = [last_checkpoint(tmp_path / name) for name in ("whole", "stopped")]
    states = [VQKD.load(checkpoint.fetch(MODEL_FILE)).state_dict() for checkpoint in last]
    assert all((states[0][key] == states[1][key]).all() for key in states[0])


@pytest.mark.parametrize("of_size", [1, 2])
def test_a_given_tokenizer_is_stored_for_the_recipe_s_grid_without_a_teacher(
    corpus, tmp_path, of_size
):
    config = params().config(teacher_dim=11)
    tokenizer = VQKD(replace(config, image_size=config.image_size * of_size))
    tokenizer.quantize.embedding.weight.normal_()
    tokenizer.save(tmp_path / "given.pth")
    chosen = params(weights=str(tmp_path / "given.pth"), teacher="clip")
    out = Store(tmp_path / "out")
    chosen_images = ReportImages(*corpus, SOURCES, 32, chosen.min_crop_scale, 0, True)
    numbers = store_and_report(out, Store(tmp_path), "given.pth", chosen, chosen_images)
    assert "teacher_cosine" not in numbers and numbers["codebook_usage"] > 0
    assert VQKD.load(out.native_path(MODEL_FILE)).config == config


def test_a_given_tokenizer_is_stored_without_a_report_where_there_are_no_images(tmp_path):
    tokenizer = VQKD(params().config(teacher_dim=11))
    tokenizer.save(tmp_path / "given.pth")
    chosen, out = params(weights=str(tmp_path / "given.pth")), Store(tmp_path / "out")
    none = ReportImages([], [], [], 32, chosen.min_crop_scale, 0, True)
    assert store_and_report(out, Store(tmp_path), "given.pth", chosen, none) == {}
    assert json.loads(out.read(REPORT_FILE)) == {}
    assert not out.exists(MAPS_FILE) and not out.exists(PATCHES_FILE)
    assert VQKD.load(out.native_path(MODEL_FILE)).config == tokenizer.config


def test_a_non_finite_step_changes_neither_weights_nor_codebook(corpus, tmp_path):
    job = VQKDJob(params(), Store(tmp_path), 0, True, *corpus, SOURCES)
    task = job.make_task(OneWorker(tmp_path / "checkpoint"))
    autocast = torch.autocast("cpu", enabled=False)
    images, sources = task.batches(0)
    assert not task.step((images, sources), 0, 1e-3, autocast).skipped
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    outcome = task.step((images.fill_(torch.nan), sources), 1, 1e-3, autocast)
    assert outcome.skipped and not np.isfinite(outcome.metrics["grad_norm"])
    after = task.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not task.step(task.batches(2), 2, 1e-3, autocast).skipped
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())


@pytest.mark.parametrize("field", ["weights", "teacher_weights"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "the file is empty"),
        ("page", "begins with '<html>'"),
        ("TorchScript", "convert it once"),
        ("other network", "not (a VQ-KD tokenizer|the weights of timm's vit_)"),
    ],
)
def test_a_file_of_weights_that_cannot_be_used_stops_the_plan(tmp_path, field, kind, words):
    path = tmp_path / "weights.pt"
    if kind == "empty":
        path.touch()
    elif kind == "page":
        path.write_text("<html>")
    elif kind == "TorchScript":
        torch.jit.save(scripted(nn.Linear(2, 2)), path)
    else:
        torch.save({"weight": torch.zeros(2)}, path)
    reason = requires(Params(teacher="clip", **{field: str(path)}))
    assert reason.startswith(f"image_tokenizer.{field}: {path}: ")
    assert re.search(words, reason), reason


def test_the_recipe_s_heads_are_those_of_a_tokenizer_without_configuration(tmp_path):
    path = tmp_path / "vqkd.pth"
    config = VQKDConfig(image_size=32, width=96, depth=1, num_heads=3, decoder_depth=1, num_codes=8)
    torch.save({"model": VQKD(config).state_dict()}, path)
    fitting = {"weights": str(path), "image_size": 32}
    assert "give num_heads" in requires(Params(**fitting))
    assert requires(Params(**fitting, num_heads=3)) is None


MISFITS = [
    ({"patch_size": 8}, "its patch_size is 16, the recipe's 8; remove image_tokenizer.patch_size"),
    ({"num_codes": 16}, "its num_codes is 8, the recipe's 16; remove image_tokenizer.num_codes"),
    ({"width": 192}, "its width is 96, the recipe's 192"),
    ({"decoder_depth": 3}, "its decoder_depth is 1, the recipe's 3"),
]


@pytest.mark.parametrize(("changes", "words"), MISFITS)
@pytest.mark.parametrize("where", ["path", "uri"])
def test_a_given_tokenizer_that_does_not_fit_the_recipe_stops_the_plan(
    tmp_path, where, changes, words
):
    config = VQKDConfig(image_size=32, width=96, depth=1, num_heads=3, decoder_depth=1, num_codes=8)
    path = tmp_path / "vqkd.safetensors"
    save_file(VQKD(config).state_dict(), path)
    with serving(path.read_bytes()) as server:
        location = str(path) if where == "path" else server.uri
        fitting = {"weights": location, "image_size": 64, "num_heads": 3}
        assert requires(Params(**fitting)) is None
        assert num_codes_of(Params(**fitting), location) == 8
        found = requires(Params(**{**fitting, **changes}))
    assert re.search(f"image_tokenizer.weights: .*{words}", found), found


@pytest.mark.parametrize("field", ["weights", "teacher_weights"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty, expected a torch or safetensors file"),
        (b"<!doctype html><title>Sign in", "HTML, expected a torch"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text, expected a torch"),
        (b"\x00" * 64, "binary, expected a torch"),
    ],
)
def test_a_remote_file_that_is_no_weights_stops_the_plan(field, body, words):
    with serving(body) as server:
        found = requires(Params(**{field: server.uri}))
    assert found.startswith(f"image_tokenizer.{field}: {server.uri}: ") and words in found


def test_remote_weights_that_are_gone_are_named():
    with serving(b"x") as server:
        server.statuses = [404] * 9
        assert "404" in requires(Params(weights=server.uri))


@pytest.mark.parametrize("legacy", [False, True])
def test_remote_torch_files_of_any_version_pass(tmp_path, legacy):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=not legacy)
    with serving(path.read_bytes()) as server:
        assert requires(Params(weights=server.uri)) is None
