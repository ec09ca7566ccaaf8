"""Text ids: equal to transformers', and packed without loss."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.miniweb.grammar import document, random_scene
from tokenizer.packing import pack
from tokenizer.text import BOS, EOS, FILE_NAME, FIRST_PIECE, UNK, TextTokenizer, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    texts = [document(random_scene(rng), rng) for _ in range(300)] + ["café, naïve; 東京"] * 5
    folder = tmp_path_factory.mktemp("text")
    (folder / FILE_NAME).write_bytes(train(texts, vocab_size=150, character_coverage=0.9995))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> TextTokenizer:
    return TextTokenizer.load(folder / FILE_NAME)


LINES = [
    "",
    " ",
    "a small red circle",
    "Two  large\tblue squares\n",
    "café 東京 🎉",
    "x" * 500,
    "def f(x): return x**2",
    "ﬁne ①",
    "\u0000\u200b",
]


def test_ids_equal_those_of_transformers(folder, tokenizer):
    from transformers import XLMRobertaTokenizer

    theirs = XLMRobertaTokenizer.from_pretrained(folder)
    for line in LINES:
        assert theirs(line)["input_ids"] == [BOS, *tokenizer.encode(line), EOS], line
    assert theirs.mask_token_id == tokenizer.mask
    assert len(theirs) == tokenizer.mask + 1
    assert (theirs.unk_token_id, theirs.pad_token_id) == (UNK, 1)


def test_text_that_looks_like_a_special_token_is_text(tokenizer):
    ids = tokenizer.encode("<mask> <s>")
    assert all(FIRST_PIECE <= i <= tokenizer.last_piece or i == UNK for i in ids)


def test_the_embedding_has_rows_for_all_ids_and_eight_unused_ones(tokenizer):
    assert tokenizer.num_rows == 150 + 10
    assert tokenizer.piece(tokenizer.mask) == "<mask>"
    assert tokenizer.piece(FIRST_PIECE) != "</s>"


def test_decoding_restores_encoded_text(tokenizer):
    text = "The circles are small, red and plain."
    assert tokenizer.decode([BOS, *tokenizer.encode(text), EOS]) == text


def test_a_vocabulary_that_is_too_large_is_refused():
    texts = ["one two three"] * 9
    with pytest.raises(ValueError, match="cannot train 5000 pieces") as error:
        train(texts, vocab_size=5000, character_coverage=1.0)
    (largest,) = re.findall(r"set vocab_size = (\d+),", str(error.value))
    assert train(texts, vocab_size=int(largest), character_coverage=1.0)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "x.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"x\.model"):
        TextTokenizer.load(tmp_path / "x.model")


def test_training_twice_gives_the_same_model():
    texts = ["a red circle, a blue square.", "a blue circle; a red square!"] * 20
    models = [train(texts, vocab_size=20, character_coverage=1.0) for _ in range(2)]
    assert models[0] == models[1]


@given(
    documents=st.lists(st.lists(st.integers(4, 65535), max_size=20), max_size=8),
    length=st.integers(2, 9),
)
def test_packing_keeps_every_token_in_order_but_the_last_few(documents, length):
    expected = [i for d in documents for i in [BOS, *d, EOS]]
    ids = np.array([i for d in documents for i in d], np.int64)
    sequences, left_over = pack(ids, np.array([len(d) for d in documents], np.int64), length)
    assert sequences.dtype == np.uint16
    assert sequences.reshape(-1).tolist() == expected[: len(expected) - left_over]
    assert left_over < length


def test_ids_beyond_sixteen_bits_are_refused():
    with pytest.raises(ValueError, match="65536"):
        pack(np.array([65536]), np.array([1]), 2)


def mixed_lines(number: int) -> list[str]:
    """Captions, code, accents, emoji, empty and very long lines, drawn from a seed."""
    rng = np.random.default_rng(1)
    # Marks stand behind what they belong to. Elsewhere (a combining accent behind a ligature)
    # transformers differs from SentencePiece itself: it normalizes whole graphemes.
    letters = [
        [*"abcdefghij ,."], [*"(){}[]=+-*/_:\t0123"], [*"éèüñçßøåæœ ÀÉ", "e\u0301", "u\u0308"],
        [*"🎉🐈⬛👩🚀✂❤ ", "👩🏽\u200d🚀", "❤\ufe0f"], [*"東京都大阪 、。"], [*"ﬁ①㍿…\u00a0\u3000"],
        [*"\u200b\u00ad\ufeff\x07"], [*"▁<mask></s><unk> "],
    ]  # fmt: skip
    lines = [*LINES, "", "x" * 20_000, "a red circle " * 3000]
    while len(lines) < number:
        kind = rng.integers(4)
        if kind == 0:
            lines.append(document(random_scene(rng), rng))
            continue
        pool = letters[0] + letters[rng.integers(len(letters))]
        lines.append("".join(rng.choice(pool, rng.integers(0, 80))))
    return lines


@pytest.mark.slow
def test_ten_thousand_lines_have_the_ids_of_transformers(folder, tokenizer):
    from transformers import XLMRobertaTokenizer

    theirs = XLMRobertaTokenizer.from_pretrained(folder)
    special = ("<mask>", "<s>", "</s>", "<pad>", "<unk>")  # transformers reads them as tokens
    lines = [line for line in mixed_lines(10_200) if not any(s in line for s in special)]
    assert len(lines) >= 10_000
    expected = theirs(lines, add_special_tokens=False)["input_ids"]
    unequal = [
        line
        for line, ours, wanted in zip(lines, tokenizer.encode_batch(lines), expected, strict=True)
        if ours.tolist() != wanted
    ]
    assert unequal == []


@pytest.mark.parametrize("limit", [7, 40, 500])
def test_a_long_text_has_the_tokens_of_its_words(tmp_path, monkeypatch, limit):
    lines = [line for line in mixed_lines(60) if "\t" not in line]
    (tmp_path / "m").write_bytes(train(lines, vocab_size=150, character_coverage=0.99))
    tokenizer = TextTokenizer.load(tmp_path / "m")
    words = ["red", "green", "and", "blue", "circles", "on", "small", "squares"]
    rng = np.random.default_rng(0)
    texts = ["", "red"] + [
        "\n".join(
            " ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(rng.integers(1, 60))
        )
        for _ in range(30)
    ]
    whole = tokenizer.encode_batch(texts)
    monkeypatch.setattr("tokenizer.text._MAX_ENCODED_CHARS", max(limit, 8))
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [
        ids.tolist() for ids in whole
    ]


def test_a_word_without_end_is_encoded_in_segments(tmp_path, monkeypatch):
    (tmp_path / "m").write_bytes(train(["a b"] * 9, vocab_size=6, character_coverage=1.0))
    tokenizer = TextTokenizer.load(tmp_path / "m")
    monkeypatch.setattr("tokenizer.text._MAX_ENCODED_CHARS", 10)
    ids, lengths = tokenizer.encode_flat(["a" * 35, "b"])
    assert lengths.sum() == len(ids) and tokenizer.decode(ids[: lengths[0]]).count("a") == 35
