"""The pair stream: an epoch shows each caption of each image once, or each image once."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model import BEiT3Config
from orchestration.storage.store import Store
from pipelines.pretrain.params import Params
from pipelines.pretrain.training_task import PretrainJob
from pipelines.tokens.pair_tokens import COUNTS_FILE, numbers_of
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tests.committing import commit_tables
from tests.pipelines.pretrain.test_feed import tokens
from tokenizer.text import BOS, train

NUM_CAPTIONS = [1] * 16 + [5] * 8
"Two sources: 16 images with a caption, 8 images with five."
SOURCES = ["cc3m"] * 16 + ["coco"] * 8
NETWORK = BEiT3Config(
    32, 2, 2, 64, image_size=32, patch_size=8, fusion_layers=1, vocab_size=640, num_codes=50,
    max_text_length=32,
)  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """Makes a pretraining on pairs whose captions are one slice_ each, with a number of its own."""
    (tmp_path / "spm").write_bytes(train(["a b c d e"] * 9, vocab_size=9, character_coverage=1))
    text = commit_tables(
        Store(tmp_path / "text"),
        [],
        row_group_rows=1,
        files={MODEL_FILE: (tmp_path / "spm").read_bytes()},
    )
    numbers = iter(range(4, 9999))
    captions = [[[next(numbers)] for _ in range(n)] for n in NUM_CAPTIONS]
    table = (
        tokens(24)["pair"]
        .drop_columns("captions")
        .append_column("captions", pa.array(captions, pa.list_(pa.list_(pa.uint16()))))
        .append_column("source", pa.array(SOURCES))
        .append_column("num_captions", pa.array(NUM_CAPTIONS, pa.uint16()))
    )
    counts = table.select(["source", "num_captions"])
    pq.write_table(counts, tmp_path / "counts")
    pairs = commit_tables(
        Store(tmp_path / "pairs"),
        [table.slice(i, 8) for i in range(0, 24, 8)],
        row_group_rows=4,
        name="train",
        files={COUNTS_FILE: (tmp_path / "counts").read_bytes()},
    )

    def make(**changes):
        params = Params(
            images_per_step=0,
            texts_per_step=0,
            pairs_per_step=2,
            substreams=2,
            pair_text_mask_ratio=0.01,
            **changes,
        )
        return PretrainJob(
            params, 3, {"pair": pairs}, text, NETWORK, text, None, text.folder
        ).make_feed(0, 1)

    return make


def shown(feed, num_steps):
    """Return how often each (row, caption) was shown: a caption's number says its row."""
    seen = Counter()
    for step in range(num_steps):
        for batch in feed.step(step):
            ids = batch.text_targets.numpy()
            assert (ids[:, 0] == BOS).all()
            rows = batch.codes[:, 0].numpy() // 2
            seen.update(zip(rows.tolist(), ids[:, 1].tolist(), strict=True))
    return seen


def captions_of_rows():
    first = np.cumsum([4, *NUM_CAPTIONS])
    return {
        (row, int(first[row]) + i) for row, number in enumerate(NUM_CAPTIONS) for i in range(number)
    }


def test_an_epoch_shows_every_caption_of_every_image_once(job):
    seen = shown(job(), sum(NUM_CAPTIONS) // 2)
    assert set(seen) == captions_of_rows() and set(seen.values()) == {1}


def test_by_image_an_epoch_shows_every_image_once_with_any_of_its_captions(job):
    feed = job(pairs_by="image")
    seen = shown(feed, 12)
    assert Counter(row for row, _ in seen) == dict.fromkeys(range(24), 1)
    several = {caption for step in range(240) for _, caption in shown_at(feed, step)}
    assert len(several) > 45  # later epochs draw other captions


def shown_at(feed, step):
    for batch in feed.step(step):
        rows = batch.codes[:, 0].numpy() // 2
        yield from zip(rows.tolist(), batch.text_targets[:, 1].tolist(), strict=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"source_weights": {"coco": 0.0}}, {"cc3m": 16, "coco": 0}),
        ({"source_weights": {"coco": 2.0}}, {"cc3m": 16, "coco": 80}),
        ({"source_weights": {"cc3m": 0.5}}, {"cc3m": 8, "coco": 40}),
        ({"source_weights": {"cc3m": 3.0}, "pairs_by": "image"}, {"cc3m": 48, "coco": 8}),
    ],
)
def test_the_weight_of_a_source_says_how_often_an_epoch_shows_its_pairs(job, changes, expected):
    feed = job(**changes)
    assert feed.orders["pair"].samples_per_epoch == sum(expected.values())
    seen = shown(feed, sum(expected.values()) // 2)
    found = Counter()
    for (row, _), number in seen.items():
        found[SOURCES[row]] += number
    assert {name: found[name] for name in expected} == expected


def test_pairs_and_images_are_counted_for_each_source():
    counts = pa.table({"source": SOURCES, "num_captions": pa.array(NUM_CAPTIONS, pa.uint16())})
    assert numbers_of(counts) == {
        "num_pairs": 56,
        "pairs/cc3m": 16,
        "pairs/coco": 40,
        "images/cc3m": 16,
        "images/coco": 8,
    }
