"""Words that are masked whole, and texts in which pieces are exchanged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.batch import MicroBatch
from pipelines.pretrain.evaluation.features import EXCHANGED, INTACT, probed_texts
from pipelines.pretrain.evaluation.words import mask_words, pieces_that_start_words, word_numbers
from tokenizer.text import BOS, EOS, FIRST_PIECE, PAD, UNK, TextTokenizer, train


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("text") / "spm.model"
    lines = ["a red circle, a blue square.", "the blue circles; one red square!"] * 30
    path.write_bytes(train(lines, vocab_size=26, character_coverage=1.0))
    return TextTokenizer.load(path)


def test_the_words_of_a_caption_are_those_between_its_spaces(text):
    caption = "one blue circle, the red squares"
    ids = text.encode(caption)
    assert len(ids) > len(caption.split())
    row = np.array([[BOS, *ids, EOS, PAD]])
    (words,) = word_numbers(row, pieces_that_start_words(text))
    assert words[0] == words[-1] == words[-2] == -1
    found = [text.decode(row[0][words == i].tolist()) for i in range(words.max() + 1)]
    assert found == caption.split()


def test_a_piece_after_a_special_token_and_the_ninth_of_a_long_word_start_words():
    starts = np.zeros(40, bool)
    ids = np.array([[5, 6, UNK, 7, *range(8, 28)]])
    words = word_numbers(ids, starts)[0]
    assert words[:4].tolist() == [0, 0, -1, 1]
    assert np.bincount(words[words >= 0]).tolist() == [2, 8, 8, 5]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), ratio=st.floats(0.01, 1), length=st.integers(1, 40))
def test_whole_words_are_masked_and_exactly_as_many_as_the_ratio_says(seed, ratio, length):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 20, (5, length))
    words = word_numbers(ids, rng.random(20) < 0.4)
    masked = mask_words(words, ratio, 1, np.arange(5))
    for row, chosen in zip(words, masked, strict=True):
        count = row.max() + 1
        of_word = [set(chosen[row == i].tolist()) for i in range(count)]
        assert all(len(values) == 1 for values in of_word)
        expected = max(round(ratio * count), 1) if count else 0
        assert sum(True in values for values in of_word) == expected
        assert not chosen[row < 0].any()


def test_the_masked_words_of_a_row_depend_on_its_number_alone():
    words = np.repeat(np.arange(12)[None], 3, 0)
    all_ = mask_words(words, 0.5, 1, np.array([4, 5, 6]))
    assert (mask_words(words[:1], 0.5, 1, np.array([6]))[0] == all_[2]).all()
    assert (all_[0] != all_[1]).any()


def packed(number: int = 200, length: int = 48) -> MicroBatch:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST_PIECE, 90, (number, length), generator=draw)
    ids[torch.rand(ids.shape, generator=draw) < 0.1] = BOS
    return MicroBatch("text", text_ids=ids * 0, text_targets=ids, text_documents=ids * 0 + 1)


def test_in_half_of_the_texts_two_neighboring_pieces_are_exchanged():
    batch = packed()
    found = probed_texts(batch, np.arange(200), 1)
    intact = batch.text_targets[:, : found.ids.shape[1]]
    assert found.documents.shape == found.ids.shape
    assert 70 < found.orders.count(EXCHANGED) < 130
    for ids, old, order in zip(found.ids, intact, found.orders, strict=True):
        (changed,) = (ids != old).nonzero(as_tuple=True)
        assert len(changed) == (2 if order == EXCHANGED else 0)
        # The pieces without their order, a baseline of the probe, say nothing.
        assert sorted(ids.tolist()) == sorted(old.tolist())
        if order == EXCHANGED:
            assert changed[1] == changed[0] + 1
            assert ids[changed].tolist() == old[changed].flip(0).tolist()
            assert (old[changed] >= FIRST_PIECE).all()


def test_a_text_that_nothing_can_be_exchanged_in_is_intact():
    ids = torch.full((50, 40), FIRST_PIECE)
    found = probed_texts(MicroBatch("text", text_targets=ids), np.arange(50), 1)
    assert set(found.orders) == {INTACT} and (found.ids == FIRST_PIECE).all()
