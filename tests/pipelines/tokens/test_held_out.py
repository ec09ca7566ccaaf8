"""The split into training rows and held-out rows: groups stay together, whatever else changes."""

import random

import numpy as np
import pyarrow as pa
import pytest
import torch

from dataprep.images import encode_jpeg
from orchestration.slices import Slice
from orchestration.storage.store import Store
from pipelines.tokens.held_out import Split
from pipelines.tokens.pair_tokens import CropParams, PairTokenizer
from pipelines.tokens.text_tokens import Params as TextParams
from pipelines.tokens.text_tokens import pack_slice
from tests.committing import commit_tables
from tests.pipelines.tokens.test_image_tokens import TOKENIZER
from tokenizer.text import train
from tokenizer.vqkd import VQKD

NUM_PAIRS = 300
CAPTIONS = [f"A drawing of number {i}" for i in range(30)]
NOTHING = np.zeros(NUM_PAIRS, bool)


def pairs(**columns) -> pa.Table:
    """300 pairs of different images, which have 30 different captions together."""
    given = {
        "sha256": [f"{i:064x}" for i in range(NUM_PAIRS)],
        "captions": [[CAPTIONS[i % 30]] for i in range(NUM_PAIRS)],
        "held_out": pa.nulls(NUM_PAIRS, pa.bool_()),
        "group": pa.nulls(NUM_PAIRS, pa.string()),
    }
    return pa.table(given | columns)


@pytest.mark.parametrize("seed", range(5))
def test_no_caption_is_on_both_sides_if_captions_are_held_out_together(seed):
    rows = pairs()
    by_image = Split(0.3, seed).held_out(rows, NOTHING)
    by_caption = Split(0.3, seed, "caption").held_out(rows, NOTHING)
    texts = [captions[0] for captions in rows["captions"].to_pylist()]

    def sides(held_out) -> tuple[set[str], set[str]]:
        sides = set(), set()
        for text, out in zip(texts, held_out, strict=True):
            sides[bool(out)].add(text)
        return sides

    assert len(set.intersection(*sides(by_image))) > 20  # what the split by image leaks
    assert not set.intersection(*sides(by_caption))
    assert by_caption.any() and not by_caption.all()


def test_of_several_captions_those_of_the_other_side_are_dropped_and_counted():
    draw = random.Random(0)
    several = [draw.sample(CAPTIONS, draw.randint(1, 5)) for _ in range(NUM_PAIRS)]
    several[0] = [several[0][0], several[0][0].upper()]
    rows, split = pairs(captions=several), Split(0.3, 1, "caption")
    held_out = split.held_out(rows, NOTHING)
    kept, num_dropped = split.captions_of_sides(rows, NOTHING)
    train, other = (
        {text.casefold() for texts, out in zip(kept, held_out, strict=True) if out == side
         for text in texts}
        for side in (False, True)
    )  # fmt: skip
    assert train and other and not train & other
    assert all(mine and mine[0] == texts[0] for mine, texts in zip(kept, several, strict=True))
    assert kept[0] == several[0]
    assert num_dropped == sum(map(len, several)) - sum(map(len, kept)) > 0


def test_a_row_is_on_the_same_side_in_any_order_and_any_company():
    rows = pairs(group=[str(i % 50) if i % 3 else None for i in range(NUM_PAIRS)])
    for split in (Split(0.2, 0), Split(0.2, 0, "caption")):
        whole = split.held_out(rows, NOTHING)
        order = np.random.default_rng(0).permutation(NUM_PAIRS)[:100]
        some = split.held_out(rows.take(pa.array(order)), NOTHING[:100])
        assert (some == whole[order]).all()
        assert (Split(0.2, 1, split.by).held_out(rows, NOTHING) != whole).any()  # another seed


def test_a_larger_fraction_holds_out_the_same_rows_and_more():
    rows, before = pairs(), NOTHING
    for fraction in (0, 0.05, 0.2, 0.5, 0.999999):
        held_out = Split(fraction, 3).held_out(rows, NOTHING)
        assert abs(held_out.mean() - fraction) < 0.08
        assert (held_out | ~before).all()
        before = held_out


def test_the_list_decides_before_the_group_and_the_group_before_the_image():
    groups = [f"patient {i % 40}" for i in range(NUM_PAIRS)]
    given = [None if i % 2 else i % 4 == 0 for i in range(NUM_PAIRS)]
    rows = pairs(group=groups, held_out=given)
    for by in ("image", "caption"):
        held_out = Split(0.3, 0, by).held_out(rows, NOTHING)
        free = [i for i in range(NUM_PAIRS) if given[i] is None]
        assert all(held_out[i] == given[i] for i in range(NUM_PAIRS) if given[i] is not None)
        assert len({(groups[i], bool(held_out[i])) for i in free}) == len({groups[i] for i in free})
        # What a list or a group decides keeps all its captions.
        kept, num_dropped = Split(0.3, 0, by).captions_of_sides(rows, NOTHING)
        assert kept == rows["captions"].to_pylist() and num_dropped == 0
    assert Split(0.0, 0).held_out(rows, ~NOTHING).all()  # a source that is held out as a whole


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two datasets of four images, and tokenizers."""
    folder = tmp_path_factory.mktemp("corpus")
    store = Store(folder)
    rng = np.random.default_rng(0)
    datasets = []
    for source in ("a", "b"):
        images = [
            encode_jpeg(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8), 90) for _ in range(4)
        ]
        table = pa.table({
            "sample_id": [f"{source}/{i}" for i in range(4)],
            "source": [source] * 4,
            "label": [""] * 4,
            "jpeg": images,
            "captions": [["a b", "c d"]] * 4,
            "sha256": [f"{source}{i}" for i in range(4)],
            "held_out": [True, False, None, None],
            "group": pa.nulls(4, pa.string()),
        })  # fmt: skip
        datasets.append(commit_tables(store.sub(source), [table], row_group_rows=2))
    kept = pa.table({
        "dataset": [0] * 4 + [1] * 4,
        "row": [*range(4), *range(4)],
        "captions": [["a b", "c d"]] * 8,
    })  # fmt: skip
    torch.manual_seed(0)
    VQKD(TOKENIZER).save(folder / "model")
    models = {
        "vqkd.pt": (folder / "model").read_bytes(),
        "spm.model": train(["a b c d e"] * 9, vocab_size=9, character_coverage=1),
    }
    tokenizers = commit_tables(store.sub("models"), [], row_group_rows=1, files=models)
    return datasets, commit_tables(store.sub("kept"), [kept], row_group_rows=4), tokenizers


def test_tokens_hold_out_what_the_split_says_and_keep_every_row_once(corpus):
    datasets, kept, models = corpus
    slice_ = Slice("0", {"start": 0, "stop": 8})
    params = CropParams(num_views=2, flip=False)
    stage = PairTokenizer(models, params, Split(0.0, 0), [1], models, kept, datasets)
    output = stage(slice_)
    ids = {name: table["sample_id"].to_pylist() for name, table in output.tables.items()}
    assert ids["held_out"] == ["a/0", "b/0", "b/1", "b/2", "b/3"]
    assert ids["train"] == ["a/1", "a/2", "a/3"]
    assert output.counters == {"num_held_out": 5, "num_captions_dropped": 0}
    views = np.array(output.tables["held_out"]["views"].to_pylist()).reshape(-1, 5)
    assert not views[:, 4].any()  # the recipe has no flips


def test_captions_on_the_other_side_are_not_among_the_tokens(corpus):
    datasets, kept, models = corpus
    params, slice_ = CropParams(num_views=1, flip=True), Slice("0", {"start": 0, "stop": 8})
    seed = next(
        s for s in range(99)
        if Split(0.5, s, "caption").caption_is_held_out("a b")
        and not Split(0.5, s, "caption").caption_is_held_out("c d")
    )  # fmt: skip
    split = Split(0.5, seed, "caption")
    output = PairTokenizer(models, params, split, [], models, kept, datasets)(slice_)
    counts = {
        row["sample_id"]: len(row["captions"])
        for name in ("train", "held_out")
        for row in output.tables[name].select(["sample_id", "captions"]).to_pylist()
    }
    assert counts == {f"{s}/{i}": 2 if i < 2 else 1 for s in "ab" for i in range(4)}
    assert output.counters["num_captions_dropped"] == 4


def test_a_corpus_may_be_held_out_as_a_whole(tmp_path, corpus):
    _, _, models = corpus
    texts = pa.table({"doc_id": [f"t/{i}" for i in range(40)], "text": ["a b c d e " * 9] * 40})
    documents = [
        commit_tables(Store(tmp_path / name), [texts], row_group_rows=8) for name in ("x", "y")
    ]
    params = TextParams(length=8, held_out_fraction=0.2)
    rows = []
    for i in (0, 1):
        slice_ = Slice("0", {"dataset": i, "start": 0, "stop": 40})
        outputs = list(pack_slice(params, 0, [1], models, documents, slice_))
        rows.append({
            name: sum(output.tables[name].num_rows for output in outputs)
            for name in ("train", "held_out")
        })  # fmt: skip
    assert rows[0]["train"] > 2 * rows[0]["held_out"] > 0
    assert rows[1]["train"] == 0 < rows[1]["held_out"]
