"""The report on a trained or given vocabulary; ``test_text_sample`` tests the drawn lines."""

import json
from collections.abc import Mapping

import pyarrow as pa
import pytest
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from orchestration import Dataset, Stage
from orchestration.errors import RecipeError, StageError
from orchestration.params import StageParams
from orchestration.reporting.usage import Expected
from orchestration.storage.store import Store
from pipelines.tokens.text_tokenizer import (
    MODEL_FILE,
    REPORT_FILE,
    Params,
    expects,
    measures,
    stage,
)
from tests.committing import commit_tables
from tests.in_process import run_in_process
from tests.one_file import serving
from tokenizer.text import TextTokenizer, train, training_lines


def test_lines_are_cut_to_the_length_that_sentencepiece_reads():
    text = "東" * 2500 + "\n\nshort"
    lines = training_lines(text)
    assert "".join(lines) == text.replace("\n", "")
    assert max(len(line.encode()) for line in lines) <= 4192


TEXTS = [f"a red circle and {i} blue squares; café" for i in range(40)]


def make(tmp_path, params: Params, name: str) -> tuple[Store, Mapping[str, float]]:
    """Run the stage on 40 documents of one line, and on three captions."""
    store = Store(tmp_path / name)
    table = pa.table({"doc_id": [str(i) for i in range(40)], "text": TEXTS})
    commit_tables(store.sub("documents/stories"), [table], row_group_rows=16)
    captions = [["two red dogs"], ["one green cat", "a cat"]]
    kept = pa.table({"dataset": [0, 0], "row": [0, 1], "captions": captions})
    commit_tables(store.sub("curate"), [kept], row_group_rows=16, name="pairs")
    commit_tables(store.sub("download/cc3m"), [kept], row_group_rows=16)
    documents, curated, images = (
        Stage(name, print, StageParams())
        for name in ("documents/stories", "curate", "download/cc3m")
    )
    declared = stage(params, seed=0, documents=[documents], curated=curated, images=[images])
    folder = store.sub("out")
    run_in_process(declared, folder, {name: store.sub(name) for name in declared.input_names})
    return folder, Dataset.open(folder).manifest.numbers


def test_a_vocabulary_that_the_corpus_does_not_support_is_one_sentence(tmp_path):
    with pytest.raises(StageError, match="SentencePiece cannot train 5000 pieces") as error:
        make(tmp_path, Params(vocab_size=5000, character_coverage=1), "a")
    assert "ValueError" not in str(error.value)


def test_the_report_covers_every_source(tmp_path):
    folder, numbers = make(tmp_path, Params(vocab_size=40, character_coverage=1), "a")
    assert numbers["num_lines"] == 43
    for source in ("stories", "cc3m"):
        assert numbers[f"unknown_fraction/{source}"] == 0
        assert numbers[f"character_coverage/{source}"] == 1
        assert numbers[f"tokens_per_word/{source}"] > 1
    counted = {
        "documents/stories": 40, "lines/stories": 40, "words/stories": 320,
        "characters/stories": sum(map(len, TEXTS)),
        "lines/cc3m": 3, "words/cc3m": 8, "characters/cc3m": 30,
    }  # fmt: skip
    report = json.loads(folder.read(REPORT_FILE))
    assert counted.items() <= numbers.items() <= report.items()
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
    with pytest.raises(ValueError, match=r"gone\.model: there is no such file; name a Sent"):
        TextTokenizer.load(tmp_path / "gone.model")


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
