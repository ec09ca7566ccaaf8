"""Ids and padding of one or two texts against transformers, which reads the same model."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.finetune.texts import TextEncoder
from tests.pipelines.finetune.examples import WORDS, text_tokenizer
from tokenizer.text import BOS, EOS, FILE_NAME, PAD, TextTokenizer, train


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    from transformers import XLMRobertaTokenizer

    folder: Path = tmp_path_factory.mktemp("text")
    lines = [" ".join(WORDS), "café, naïve; 東京!", "0 1 2 3?"] * 40
    (folder / FILE_NAME).write_bytes(train(lines, vocab_size=36, character_coverage=1.0))
    ours = TextTokenizer.load(folder / FILE_NAME)
    return ours, XLMRobertaTokenizer.from_pretrained(folder)


TEXT = st.lists(
    st.sampled_from([*WORDS, "café", "東京", "🎉", "naïve;"]), min_size=1, max_size=12
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=2), length=st.integers(6, 40))
def test_ids_of_one_or_two_texts_are_transformers(both, texts, length):
    ours, theirs = both
    expected = theirs(*texts, truncation="longest_first", max_length=length)["input_ids"]
    assert TextEncoder(ours, length).ids(texts) == expected


@settings(max_examples=100, deadline=None)
@given(
    batch=st.lists(st.lists(TEXT, min_size=1, max_size=2), min_size=1, max_size=5),
    length=st.integers(6, 80),
)
def test_a_batch_is_padded_on_the_right_to_one_of_a_few_lengths(both, batch, length):
    ours, theirs = both
    ids, padding = TextEncoder(ours, length)(batch)
    rows = [theirs(*t, truncation="longest_first", max_length=length)["input_ids"] for t in batch]
    assert max(map(len, rows)) <= ids.shape[1] <= length
    for row, some, hidden in zip(rows, ids.tolist(), padding.tolist(), strict=True):
        rest = ids.shape[1] - len(row)
        assert some == row + [PAD] * rest
        assert hidden == [False] * len(row) + [True] * rest
    encode = TextEncoder(ours, length)
    lengths = {encode([[" ".join(WORDS * n)]])[0].shape[1] for n in range(30)}
    assert len(lengths) <= 4 and max(lengths) == length


def test_a_text_is_truncated_before_its_end_and_a_short_one_of_a_pair_stays():
    encode = TextEncoder(text_tokenizer(), 12)
    assert encode.ids(["circle " * 30])[-1] == EOS and len(encode.ids(["circle " * 30])) == 12
    short = encode.ids(["a"])
    pair = encode.ids(["circle " * 30, "a"])
    assert len(pair) == 12 and pair[-len(short) :] == [EOS, *short[1:]]
    assert pair[0] == BOS and np.count_nonzero(np.array(pair) == EOS) == 3


@pytest.mark.parametrize(("texts", "least"), [(["a"], 3), (["a", "the"], 6)])
def test_a_length_without_room_for_the_texts_is_refused(texts, least):
    tokenizer = text_tokenizer()
    assert len(TextEncoder(tokenizer, least).ids(texts)) == least
    with pytest.raises(ValueError, match=f"max_text_length = {least - 1} .* {least} or more"):
        TextEncoder(tokenizer, least - 1).ids(texts)
