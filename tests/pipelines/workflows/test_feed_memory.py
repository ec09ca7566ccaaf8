"""What a plan says of the feed's memory, against row groups that a feed really holds."""

import numpy as np
import pyarrow as pa
import pytest

from model import BEiT3Config
from orchestration.recipe import load_recipe
from orchestration.storage.store import Store
from pipelines.builtin_recipes import recipe_path
from pipelines.pretrain.feed import Feed
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.workflows.feed_memory import feed_memory, held_bytes
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from tests.committing import commit_tables
from tokenizer.text import TextTokenizer, train


def recipe(name: str, *changes: str) -> PretrainRecipe:
    overrides = ["download.contact=a@b.example", *changes]
    return load_recipe(PretrainRecipe, recipe_path(name), overrides=overrides)


def test_the_estimate_is_what_a_feed_holds(tmp_path):
    length, group_rows, window, substreams = 64, 256, 4, 8
    chosen = recipe(
        "base",
        *("train.images_per_step=0", "train.pairs_per_step=0", "train.texts_per_step=64"),
        *(f"text_tokens.length={length}", f"text_tokens.row_group_rows={group_rows}"),
        *(f"train.substreams={substreams}", f"train.shuffle_window={window}"),
        *("train.num_workers=2", "image_tokenizer.substreams=8"),
    )
    ids = pa.array(np.full(group_rows * 160 * length, 5, np.uint16))
    table = pa.table({"ids": pa.FixedSizeListArray.from_arrays(ids, length)})
    dataset = commit_tables(Store(tmp_path / "t"), [table], row_group_rows=group_rows, name="train")
    path = tmp_path / "spm.model"
    path.write_bytes(train(["a b c d e"] * 9, vocab_size=9, character_coverage=1))
    network = BEiT3Config.named("tiny", vocab_size=60, num_codes=50)
    params = FeedParams(0.15, 0.5, 0.4, "separate", 16, 0.0, 0.0, False)
    feed = Feed(
        {"text": dataset},
        {"text": SampleBuilder("text", network, TextTokenizer.load(path), params, 0)},
        samples_per_step={"image": 0, "text": 64, "pair": 0},
        micro_batch=64,
        num_substreams=substreams,
        shuffle_window=window,
        seed=0,
        rank=0,
        num_workers=2,
    )
    held = []
    for step in range(0, 400, 16):
        feed.step(step)
        feed.reading.submit(int).result()
        held.append(feed.readers["text"].num_bytes)
    # In the first window of an epoch fewer row groups are held.
    assert held_bytes(chosen) == pytest.approx(np.mean(held), rel=0.15)
    assert max(held) < 1.15 * held_bytes(chosen)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("tiny", [], None),
        ("base", ["train.num_workers=1"], "256 substreams / 1 workers x shuffle_window = 8"),
        ("base", ["train.num_workers=1"], "less with more workers, fewer train.substreams"),
        ("giant", [], None),  # 256 workers
    ],
)
def test_a_plan_names_memory_of_gigabytes(name, changes, words):
    found = "".join(feed_memory(recipe(name, *changes)))
    assert (not found) if words is None else words in found
