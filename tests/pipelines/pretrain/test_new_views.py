"""New views at each visit: the tokenizer and the network see the same jittered crop."""

import numpy as np
import pytest
import torch

from dataprep import crop_batches
from dataprep.images import decode_stored
from dataprep.views import View, cut
from model.training.batch import STREAMS
from orchestration.storage.store import Store
from pipelines.pretrain.crops import NewViewCutter, NewViews
from pipelines.pretrain.params import Params
from pipelines.pretrain.samples import SampleBuilder
from pipelines.pretrain.training_task import PretrainJob, PretrainTask
from pipelines.tokens.text_tokenizer import MODEL_FILE
from pipelines.tokens.vqkd_training import MODEL_FILE as TOKENIZER_FILE
from tests.committing import commit_tables
from tests.one_worker import OneWorker
from tests.pipelines.pretrain.test_feed import NETWORK, dataset, tokens
from tokenizer.text import train
from tokenizer.vqkd import VQKD, VQKDConfig, to_input

VIEWS = NewViews(min_crop_scale=0.3, flip=True, tokenizer_size=64)
TOKENIZER = VQKDConfig(
    image_size=64, patch_size=16, width=32, depth=1, num_heads=2, decoder_depth=1, num_codes=50,
    code_dim=8, teacher_dim=8, kmeans=False,
)  # fmt: skip


def cutter(color_jitter=0.4, views=VIEWS) -> NewViewCutter:
    return NewViewCutter(NETWORK, color_jitter, 5, 6, views)


def recorded(monkeypatch, name: str) -> list:
    """Record what a function returns that is called for each image."""
    function, results = getattr(crop_batches, name), []

    def record(*args, **options):
        results.append(function(*args, **options))
        return results[-1]

    monkeypatch.setattr(crop_batches, name, record)
    return results


def test_both_crops_are_one_box_of_the_jittered_image(monkeypatch):
    rows = tokens(4)["image"].select(["sample_id", "jpeg"])
    boxes, jittered = (recorded(monkeypatch, name) for name in ("random_view", "apply_operations"))
    made = cutter()(rows, 3, np.arange(4))
    assert made.codes is None and len(boxes) == len(jittered) == 4
    for i, jpeg in enumerate(rows["jpeg"].to_pylist()):
        stored = decode_stored(jpeg)
        assert jittered[i].shape == stored.shape and not np.array_equal(jittered[i], stored)
        assert np.array_equal(made.images[i], cut(jittered[i], View(*boxes[i]), 32))
        assert np.array_equal(made.for_tokenizer[i], cut(jittered[i], View(*boxes[i]), 64))
    assert len({tuple(box) for box in boxes}) == 4


def test_a_new_view_is_drawn_at_each_visit_and_depends_on_step_and_slot_alone():
    rows = tokens(4)["image"].select(["sample_id", "jpeg"])
    whole = [cutter()(rows, step, np.arange(4)) for step in range(3)]
    for a in range(3):
        for b in range(a):
            assert not np.array_equal(whole[a].images, whole[b].images)
    part = cutter()(rows.slice(2, 2), 1, np.arange(2, 4))
    assert np.array_equal(part.images, whole[1].images[2:])


def test_without_flips_no_view_is_mirrored(monkeypatch):
    rows = tokens(8)["image"].select(["sample_id", "jpeg"])
    views = recorded(monkeypatch, "random_view")
    cutter(views=NewViews(0.3, flip=False, tokenizer_size=64))(rows, 0, np.arange(8))
    assert not any(view.flip for view in views)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "spm").write_bytes(train(["a b c d e"] * 9, vocab_size=9, character_coverage=1))
    torch.manual_seed(0)
    VQKD(TOKENIZER).save(tmp_path / "vqkd")
    files = {MODEL_FILE: (tmp_path / "spm").read_bytes()}
    text = commit_tables(Store(tmp_path / "text"), [], row_group_rows=1, files=files)
    files = {TOKENIZER_FILE: (tmp_path / "vqkd").read_bytes()}
    tokenizer = commit_tables(Store(tmp_path / "vq"), [], row_group_rows=1, files=files)
    # Without the columns of stored views: they are not read.
    tables = {"image": tokens(24)["image"].select(["sample_id", "jpeg"])}
    datasets = {name: dataset(Store(tmp_path / name), table) for name, table in tables.items()}
    params = Params(
        images_per_step=8, texts_per_step=0, pairs_per_step=0, substreams=4, shuffle_window=2,
        steps=3, warmup_steps=1, micro_batch=4, precision="fp32", codes="online",
    )  # fmt: skip
    return PretrainJob(params, 3, datasets, text, NETWORK, tokenizer, VIEWS, text.folder)


def test_the_network_predicts_the_codes_of_the_crop_that_it_sees(job, tmp_path):
    task = PretrainTask(job, OneWorker(tmp_path / "checkpoint"))
    batches = task.batches(0)
    images = torch.cat([to_input(batch.tokenizer_pixels) for batch in batches])
    assert all(batch.codes is None for batch in batches)
    outcome = task.step(batches, 0, 1e-3, torch.autocast("cpu", enabled=False))
    assert not outcome.skipped and outcome.metrics["loss/mim"] > 0
    codes = torch.cat([batch.codes for batch in batches])
    expected = VQKD.load(job.tokenizer.fetch(TOKENIZER_FILE)).encode(images)
    assert torch.equal(codes, expected) and codes.shape == (8, NETWORK.num_patches)


def test_the_tokenizer_is_not_trained(job, tmp_path):
    task = PretrainTask(job, OneWorker(tmp_path / "checkpoint"))
    before = {name: tensor.clone() for name, tensor in task.tokenizer.state_dict().items()}
    for step in range(2):
        task.step(task.batches(step), step, 1e-2, torch.autocast("cpu", enabled=False))
    after = task.tokenizer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    names = {name for name, _ in task.network.named_parameters()}
    assert len(names) == sum(len(group["params"]) for group in task.optimizer.param_groups)


def test_a_builder_reads_only_the_columns_that_it_needs(job):
    feed = job.make_feed(0, 1)
    assert feed.builders["image"].columns == ("sample_id", "jpeg")
    stored = {
        stream: SampleBuilder(
            stream, NETWORK, feed.builders["text"].text, job.params.feed_params(), 1
        ).columns
        for stream in STREAMS
    }
    assert stored["text"] == ("ids",) and "codes" in stored["image"]
    assert {"codes", "captions"} <= set(stored["pair"])


def test_colors_of_new_views_change_before_the_crop_on_a_gpu_too(job):
    on_gpu, on_cpu = (job.make_feed(0, 1, on_gpu=on_gpu).step(0) for on_gpu in (True, False))
    for some, other in zip(on_gpu, on_cpu, strict=True):
        assert some.jitter_operations is None and torch.equal(some.pixels, other.pixels)


def test_pixels_of_the_tokenizer_are_in_its_range():
    rows = tokens(4)["image"].select(["sample_id", "jpeg"])
    pixels = to_input(cutter()(rows, 0, np.arange(4)).for_tokenizer)
    assert pixels.shape == (4, 3, 64, 64) and pixels.abs().max() <= 1
