"""The feed: pixels match their codes, counts are exact, and a batch depends on its step alone."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torchvision.transforms.functional import normalize, to_tensor

from dataprep.images import decode_stored, encode_jpeg
from dataprep.views import View, cut, random_view
from model import BEiT3Config
from model.training.batch import MicroBatch
from model.training.objectives import num_predictions
from orchestration.dataset import Dataset
from orchestration.storage.store import Store
from pipelines.pretrain.feed import Feed, PairOrder
from pipelines.pretrain.sample_ids import sample_ids
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.readers.prefetch import prefetch
from tests.committing import commit_tables
from tests.pipelines.pretrain.small_job import make_job
from tokenizer.text import BOS, EOS, PAD, TextTokenizer, train

NETWORK = BEiT3Config(
    32, 2, 2, 64, image_size=32, patch_size=8, fusion_layers=1, vocab_size=60, num_codes=50,
    max_text_length=32,
)  # fmt: skip
PARAMS = FeedParams(
    0.15, 0.5, 0.4, "separate", max_caption_length=12, color_jitter=0.0, drop_path=0.1,
    isolate_documents=False,
)  # fmt: skip
NUM_VIEWS = 2


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("text") / "spm.model"
    words = ["a red circle, a blue square.", "the blue circle; one red square!"] * 30
    path.write_bytes(train(words, vocab_size=25, character_coverage=1.0))
    return TextTokenizer.load(path)


def dataset(folder: Store, table: pa.Table, per_part: int = 8) -> Dataset:
    tables = [table.slice(i, per_part) for i in range(0, table.num_rows, per_part)]
    return commit_tables(folder, tables, row_group_rows=4, name="train")


def tokens(num: int) -> dict[str, pa.Table]:
    """Token tables whose codes encode their row and view."""
    rng = np.random.default_rng(0)
    jpegs, views, codes = [], [], []
    for i in range(num):
        pixels = rng.integers(0, 255, (48, 60, 3), dtype=np.uint8)
        jpegs.append(encode_jpeg(pixels, 95))
        for index in range(NUM_VIEWS):
            views.append(random_view(60, 48, 0.3, 0, f"row/{i}", index))
            codes.append(np.full(NETWORK.num_patches, i * NUM_VIEWS + index))
    fixed = pa.FixedSizeListArray.from_arrays
    images = pa.table(
        {
            "sample_id": [f"row/{i}" for i in range(num)],
            "jpeg": jpegs,
            "views": fixed(pa.array(np.array(views, np.uint16).ravel()), 5 * NUM_VIEWS),
            "codes": fixed(
                pa.array(np.array(codes, np.uint16).ravel()), NETWORK.num_patches * NUM_VIEWS
            ),
        }
    )
    captions = [[list(range(4, 5 + i % 14))] for i in range(num)]
    words = rng.integers(4, 25, num * 16).astype(np.uint16)
    words[rng.random(len(words)) < 0.1] = BOS
    texts = pa.array(words)
    return {
        "image": images,
        "text": pa.table({"ids": fixed(texts, 16)}),
        "pair": images.append_column(
            "captions", pa.array(captions, pa.list_(pa.list_(pa.uint16())))
        ),
    }


def make_feed(
    folder, text, rank=0, num_workers=1, micro_batch=4, params=PARAMS, num_threads=1, pairs=None
) -> Feed:
    tables = tokens(24)
    datasets = {name: dataset(Store(folder / name), table) for name, table in tables.items()}
    builders = {name: SampleBuilder(name, NETWORK, text, params, 3) for name in tables}
    return Feed(
        datasets, builders, samples_per_step=dict.fromkeys(tables, 8), micro_batch=micro_batch,
        num_substreams=4, shuffle_window=2, seed=3, rank=rank, num_workers=num_workers,
        num_threads=num_threads, pairs=pairs,
    )  # fmt: skip


def equal(some: list[MicroBatch], others: list[MicroBatch]) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for a, b in zip(some, others, strict=True)
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def test_the_network_gets_the_pixels_whose_codes_it_predicts(tmp_path, text):
    jpegs = tokens(24)["image"]["jpeg"].to_pylist()
    for batch in make_feed(tmp_path, text).step(5):
        batch = batch.to(torch.device("cpu"))
        if batch.images is None:
            continue
        for image, codes in zip(batch.images, batch.codes, strict=True):
            row, index = divmod(int(codes[0]), NUM_VIEWS)
            view = random_view(60, 48, 0.3, 0, f"row/{row}", index)
            expected = cut(decode_stored(jpegs[row]), View(*view), 32)
            found = (image.permute(1, 2, 0) * 0.5 + 0.5) * 255
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("stream", ["image", "pair"])
@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff", bytes(99)])
def test_a_damaged_image_is_named(text, stream, jpeg):
    rows = tokens(4)[stream]
    damaged = [*rows["jpeg"].to_pylist()[:3], jpeg]
    rows = rows.set_column(rows.column_names.index("jpeg"), "jpeg", [damaged])
    builder = SampleBuilder(stream, NETWORK, text, PARAMS, 3)
    with pytest.raises(ValueError, match="stored image of row/3 is damaged"):
        builder.build(rows, 0, np.arange(4))


def test_mask_counts_are_exact_and_each_pair_masks_one_modality(tmp_path, text):
    batches = make_feed(tmp_path, text).step(0)
    assert [b.stream for b in batches] == ["image"] * 2 + ["text"] * 2 + ["pair"] * 2
    for batch in batches:
        if batch.stream == "image":
            assert batch.image_mask.sum(1).tolist() == [round(0.4 * 16)] * 4
        if batch.stream == "text":
            assert batch.text_ids.shape == (4, 16)
            specials = (batch.text_targets == BOS).sum(1)
            expected = ((16 - specials) * 0.15).round()
            assert batch.text_mask.sum(1).tolist() == expected.tolist()
        if batch.stream == "pair":
            masks_text, masks_image = batch.text_mask.any(1), batch.image_mask.any(1)
            assert torch.equal(masks_text, ~masks_image)
            assert masks_text.sum() == 2


def test_packed_documents_are_numbered_from_their_first_tokens(tmp_path, text):
    apart = FeedParams(**{**vars(PARAMS), "isolate_documents": True})
    numbers = set()
    for batch in make_feed(tmp_path, text, params=apart).step(0):
        if batch.stream != "text":
            assert batch.text_documents is None
            continue
        for ids, documents in zip(batch.text_targets, batch.text_documents, strict=True):
            number = 0
            for token, document in zip(ids.tolist(), documents.tolist(), strict=True):
                number += token == BOS
                assert document == number
            numbers.add(number)
    assert max(numbers) > 1
    assert make_feed(tmp_path, text).step(0)[2].text_documents is None


def test_joint_masking_masks_both_modalities(tmp_path, text):
    joint = FeedParams(**{**vars(PARAMS), "pair_masking": "joint"})
    pairs = [b for b in make_feed(tmp_path, text, params=joint).step(0) if b.stream == "pair"]
    assert all(b.text_mask.any(1).all() and b.image_mask.any(1).all() for b in pairs)


def test_captions_are_wrapped_truncated_and_padded_to_a_multiple_of_eight(tmp_path, text):
    for batch in make_feed(tmp_path, text).step(2):
        if batch.stream != "pair":
            continue
        assert batch.text_targets.shape[1] % 8 == 0
        for ids in batch.text_targets.tolist():
            real = [i for i in ids if i != PAD]
            assert real[0] == BOS and real[-1] == EOS and len(real) <= 12
            assert ids == real + [PAD] * (len(ids) - len(real))
        masked = batch.text_targets[batch.text_mask]
        assert not set(masked.tolist()) & {BOS, EOS, PAD}


@pytest.mark.parametrize("by_caption", [True, False])
def test_pairs_with_captions_of_like_lengths_share_a_micro_batch(tmp_path, text, by_caption):
    """Lengths are 2 more than the row's number modulo 14, and 1; what is cut counts in whole."""
    long = replace(PARAMS, max_caption_length=32)
    pairs = PairOrder(np.ones(24, np.uint16)) if by_caption else None
    whole = make_feed(tmp_path / "whole", text, micro_batch=8, params=long, pairs=pairs)
    some = make_feed(tmp_path / "some", text, micro_batch=2, params=long, pairs=pairs)
    for step in range(6):
        (one,) = [batch for batch in whole.step(step) if batch.stream == "pair"]
        parts = [batch for batch in some.step(step) if batch.stream == "pair"]
        lengths = [[int((ids != PAD).sum()) for ids in batch.text_targets] for batch in parts]
        in_order = list(itertools.chain(*lengths))
        assert in_order == sorted(int((ids != PAD).sum()) for ids in one.text_targets)
        for batch, longest in zip(parts, map(max, lengths), strict=True):
            assert batch.text_targets.shape[1] == -(-longest // 8) * 8
        rows = [int(codes[0]) // NUM_VIEWS for batch in parts for codes in batch.codes]
        assert in_order == [3 + row % 14 for row in rows]
        found = sample_ids(some, step).filter(pc.field("stream") == "pair")
        assert found["sample_id"].to_pylist() == [f"row/{row}" for row in rows]
        assert found["text"].to_pylist() == [
            text.decode(ids[1 : n - 1].tolist())
            for batch, counts in zip(parts, lengths, strict=True)
            for ids, n in zip(batch.text_targets, counts, strict=True)
        ]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
def test_workers_share_one_global_batch(tmp_path, text, num_workers):
    """Each sample, including masks and stochastic depth, is the same on any worker."""

    def samples(feed: Feed, step: int) -> dict[str, list]:
        found: dict[str, list] = {}
        for batch in feed.step(step):
            ids = batch.text_ids  # padding depends on the micro-batch, so it does not count
            parts = [batch.pixels, batch.image_mask, None if ids is None else ids * (ids != PAD)]
            if not sum(num_predictions(batch).values()):
                continue  # its samples stand in another micro-batch too
            for i in range(len(batch.codes if ids is None else ids)):
                key = [part[i].double().sum().item() for part in parts if part is not None]
                key.append(batch.residual_scale[..., i].double().sum().item())
                found.setdefault(batch.stream, []).append(key)
        return {stream: sorted(keys) for stream, keys in found.items()}

    whole = samples(make_feed(tmp_path / "one", text), 9)
    parts = [
        samples(make_feed(tmp_path / f"{rank}", text, rank, num_workers, micro_batch=2), 9)
        for rank in range(num_workers)
    ]
    for stream, keys in whole.items():
        together = sorted(key for part in parts for key in part[stream])
        np.testing.assert_allclose(together, keys)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 64])
def test_workers_with_fewer_samples_have_as_many_micro_batches(tmp_path, text, micro_batch):
    """Three workers of four substreams: shards of the network are exchanged in each one."""
    steps = [
        make_feed(tmp_path / f"{rank}", text, rank, 3, micro_batch).step(9) for rank in range(3)
    ]
    streams = [[batch.stream for batch in batches] for batches in steps]
    assert streams[0] == streams[1] == streams[2]
    total: Counter[str] = Counter()
    for batch in itertools.chain(*steps):
        total.update({batch.stream: sum(num_predictions(batch).values())})
    alone: Counter[str] = Counter()
    for batch in make_feed(tmp_path / "alone", text).step(9):
        alone.update({batch.stream: sum(num_predictions(batch).values())})
    assert total == alone


def test_a_step_does_not_depend_on_earlier_steps(tmp_path, text):
    one, other = make_feed(tmp_path / "1", text), make_feed(tmp_path / "2", text)
    for step in range(12):
        last = one.step(step)
    assert equal(last, other.step(11))


def test_steps_that_threads_make_at_once_are_those_of_one_thread(tmp_path, text):
    one, many = make_feed(tmp_path / "1", text), make_feed(tmp_path / "2", text, num_threads=5)
    with prefetch(many.step, 0, 40, depth=3) as steps:
        for step, batches in enumerate(steps):
            assert equal(batches, one.step(step)), step


def test_a_row_group_is_read_once_for_each_of_its_windows(tmp_path, text):
    """24 rows in row groups of 4, 4 substreams with windows of 2: an epoch of 3 steps."""
    feed = make_feed(tmp_path, text)
    for step in range(96):
        feed.step(step)
    for reader in feed.readers.values():
        # Every row group is held for all steps: those of 16 steps are held at once.
        assert reader.num_reads == 6


def test_pixels_become_what_torchvision_makes_of_them(tmp_path, text):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    builder = SampleBuilder(
        "image", replace(NETWORK, pixel_mean=mean, pixel_std=std), text, PARAMS, 3
    )
    batch = builder.build(tokens(4)["image"], 0, np.arange(4))
    moved = batch.to(torch.device("cpu"))
    images = torch.stack([to_tensor(pixels.numpy()) for pixels in batch.pixels])
    torch.testing.assert_close(moved.images, normalize(images, mean, std), rtol=1e-6, atol=1e-6)
    assert moved.pixels is None and batch.pixels.dtype == torch.uint8


@pytest.mark.parametrize("stream", ["image", "pair"])
def test_colors_that_change_on_the_device_are_those_that_change_before_it(text, stream):
    params = replace(PARAMS, color_jitter=0.4)
    rows, slots = tokens(8)[stream], np.arange(8)
    before, later, plain = (
        SampleBuilder(stream, NETWORK, text, some, 3, jitters_later=later).build(rows, 7, slots)
        for some, later in ((params, False), (params, True), (PARAMS, True))
    )
    assert torch.equal(later.pixels, plain.pixels) and not torch.equal(later.pixels, before.pixels)
    assert plain.jitter_operations is None and before.jitter_operations is None
    moved = later.to(torch.device("cpu"))
    assert torch.equal(moved.images, before.to(torch.device("cpu")).images)
    assert moved.jitter_operations is None and moved.jitter_factors is None
    some = later.rows(torch.tensor([5, 2])).to(torch.device("cpu"))
    assert torch.equal(some.images, moved.images[[5, 2]])


def test_colors_change_on_the_device_where_it_is_a_gpu(tmp_path):
    job = make_job(tmp_path)
    for on_gpu in (True, False):
        for batch in job.make_feed(0, 1, on_gpu=on_gpu).step(0):
            has_draws = on_gpu and batch.stream != "text"
            assert (batch.jitter_operations is not None) == has_draws


def test_a_tokenizer_with_another_grid_is_refused(tmp_path, text):
    feed = make_feed(tmp_path, text)
    other = BEiT3Config.named("tiny", vocab_size=60, num_codes=50)
    feed.builders["image"] = SampleBuilder("image", other, text, PARAMS, 3)
    with pytest.raises(ValueError, match="disagree on the grid"):
        feed.step(0)


def test_an_error_about_too_few_row_groups_names_the_stream(tmp_path, text):
    with pytest.raises(ValueError, match="image stream: 6 row groups are fewer than 8"):
        tables = tokens(24)
        datasets = {"image": dataset(Store(tmp_path), tables["image"])}
        Feed(
            datasets, {}, samples_per_step={"image": 8}, micro_batch=4, num_substreams=8,
            shuffle_window=2, seed=0, rank=0, num_workers=1,
        )  # fmt: skip
