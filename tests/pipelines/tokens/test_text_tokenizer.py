"""The sample that a vocabulary is trained on, and the report on a trained or given one."""

import json

import numpy as np
import pyarrow as pa
import pytest
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from orchestration.errors import RecipeError
from orchestration.reporting.usage import Expected
from orchestration.storage.store import Store
from pipelines.tokens.text_sample import Sample, sample_documents
from pipelines.tokens.text_tokenizer import (
    MODEL_FILE,
    REPORT_FILE,
    Params,
    expects,
    make_model,
    measures,
)
from tests.committing import commit_tables
from tests.one_file import serving
from tokenizer.text import TextTokenizer, train, training_lines


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_sample_holds_the_smallest_keys_for_any_chunking_of_the_lines(chunk):
    keys = np.random.default_rng(0).random(1000)
    lines = [f"line {i}" for i in range(1000)]
    sample = Sample(50)
    for start in range(0, 1000, chunk):
        sample.offer(lines[start : start + chunk], keys[start : start + chunk], source=0)
        assert len(sample._lines) <= 2 * 50 + chunk  # memory does not grow with the corpus
    expected = sorted(np.argsort(keys)[:50])
    assert [line for _, line in sample.lines()] == [lines[i] for i in expected]


def documents(store: Store, name: str, texts: list[str]):
    table = pa.table({"doc_id": [str(i) for i in range(len(texts))], "text": texts})
    return commit_tables(store.sub(name), [table], row_group_rows=16)


def test_the_sample_of_documents_depends_on_the_seed_alone(tmp_path):
    texts = [f"first {i}\nsecond {i}\nthird {i}" for i in range(60)]
    dataset = documents(Store(tmp_path), "a", texts)
    drawn = sample_documents([dataset], 40, seed=1)
    assert len(drawn) == len(set(drawn)) == 40
    assert {line.split()[0] for _, line in drawn} == {"first", "second", "third"}
    assert drawn == sample_documents([dataset], 40, seed=1)
    assert drawn != sample_documents([dataset], 40, seed=2)
    assert len(sample_documents([dataset], 10_000, seed=1)) == 180


def test_lines_are_cut_to_the_length_that_sentencepiece_reads():
    text = "東" * 2500 + "\n\nshort"
    lines = training_lines(text)
    assert "".join(lines) == text.replace("\n", "")
    assert max(len(line.encode()) for line in lines) <= 4192


def make(tmp_path, params: Params, name: str) -> tuple[Store, dict[str, float]]:
    store = Store(tmp_path / name)
    texts = [f"a red circle and {i} blue squares; café" for i in range(40)]
    images = pa.table({"sample_id": ["a", "b"]})
    images = commit_tables(store.sub("images"), [images], row_group_rows=16)
    captions = [["two red dogs"], ["one green cat", "a cat"]]
    kept = pa.table({"dataset": [0, 0], "row": [0, 1], "captions": captions})
    curated = commit_tables(store.sub("curated"), [kept], row_group_rows=16, name="pairs")
    folder = store.sub("out")
    sources = [["stories"], ["cc3m"]]
    corpus = [documents(store, "docs", texts)]
    return folder, make_model(folder, params, 0, corpus, curated, [images], sources)


def test_the_report_covers_every_source(tmp_path):
    folder, numbers = make(tmp_path, Params(vocab_size=40, character_coverage=1), "a")
    assert numbers["num_lines"] == 43
    for source in ("stories", "cc3m"):
        assert numbers[f"unknown_fraction/{source}"] == 0
        assert numbers[f"character_coverage/{source}"] == 1
        assert numbers[f"tokens_per_word/{source}"] > 1
    report = json.loads(folder.read(REPORT_FILE))
    lengths = [len(piece) for piece in report["longest_pieces"]]
    assert lengths == sorted(lengths, reverse=True)


def test_a_given_model_is_stored_unchanged_and_reported(tmp_path):
    model = train(["uno dos tres"] * 30, vocab_size=12, character_coverage=1.0)
    (tmp_path / "given.model").write_bytes(model)
    folder, numbers = make(tmp_path, Params(model=str(tmp_path / "given.model")), "b")
    assert folder.read(MODEL_FILE) == model
    assert numbers["unknown_fraction/stories"] > 0.3
    assert numbers["character_coverage/stories"] < 0.9


def with_pieces(number: int) -> bytes:
    """A model with further pieces, made by SentencePiece's own protocol buffer."""
    model = ModelProto()
    model.ParseFromString(train(["uno dos tres"] * 30, vocab_size=12, character_coverage=1.0))
    while len(model.pieces) < number:
        model.pieces.add(piece=f"piece{len(model.pieces)}", score=-20.0)
    return model.SerializeToString()


@pytest.mark.parametrize("number", [65_527, 66_000, 250_002])
def test_a_given_model_with_too_many_pieces_is_refused_at_plan(tmp_path, number):
    path = tmp_path / "large.model"
    path.write_bytes(with_pieces(number))
    with pytest.raises(RecipeError, match=rf"large\.model: {number} pieces; .* 65526"):
        expects(Params(model=str(path)))


def test_the_largest_model_that_fits_and_no_other_kind_of_file_passes_the_plan(tmp_path):
    path = tmp_path / "given.model"
    path.write_bytes(with_pieces(65_526))
    assert expects(Params(model=str(path))) == Expected()
    assert TextTokenizer.load(path).num_rows == 2**16
    assert expects(Params()) == Expected()
    path.write_bytes(b"no model")
    with pytest.raises(RecipeError, match=r"text_tokenizer\.model: .*not a SentencePiece model"):
        expects(Params(model=str(path)))


def test_byte_fallback_encodes_characters_without_a_piece(tmp_path):
    texts = ["a red circle, a blue square.", "a blue circle; a red square!"] * 20
    known, unknown = texts[0], "東京"
    for byte_fallback, vocab_size in ((False, 20), (True, 20 + 256)):
        model = train(
            texts, vocab_size=vocab_size, character_coverage=1.0, byte_fallback=byte_fallback
        )
        (tmp_path / "m").write_bytes(model)
        tokenizer = TextTokenizer.load(tmp_path / "m")
        assert measures(tokenizer, [known])["unknown_fraction"] == 0
        assert (measures(tokenizer, [unknown])["unknown_fraction"] > 0) is not byte_fallback


def test_a_given_model_on_a_server_is_read_at_plan():
    with serving(with_pieces(100)) as server:
        assert expects(Params(model=server.uri)) == Expected()
    for body in (b"<!doctype html>", b"", with_pieces(65_527)):
        with serving(body) as server:
            with pytest.raises(RecipeError) as error:
                expects(Params(model=server.uri))
            assert f"text_tokenizer.model: {server.uri}: " in str(error.value)
