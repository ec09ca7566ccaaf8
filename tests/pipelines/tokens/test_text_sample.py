"""The lines that a vocabulary is trained on: the same for any slices, workers and kills.

They are compared with a sample that is sorted out of all lines in memory (``drawing``).
"""

import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from orchestration import Stage
from orchestration.manifest import read_parts
from orchestration.params import StageParams
from orchestration.reporting.progress import Shown, StageProgress
from orchestration.reporting.run_log import RunLog
from orchestration.storage.store import Store
from pipelines.tokens import text_sample
from pipelines.tokens.text_sample import Corpus, count_texts, draw, threshold_for
from tests.committing import commit_tables
from tests.in_process import InProcess
from tests.pipelines.tokens.drawing import (
    captions_of,
    documents_of,
    expected_captions,
    expected_documents,
    kept_table,
)
from tokenizer.text import training_lines

TEXTS = [documents_of(0, 150), documents_of(1, 61), []]
PAIRS = captions_of(90)
LINES = [[line for text in texts for line in training_lines(text)] for texts in TEXTS]
NUM_LINES = sum(map(len, LINES))
NUM_CAPTIONS = sum(len(captions) for _, captions in PAIRS)


def context_at(folder: Store) -> InProcess:
    progress = StageProgress("s", folder, Shown(Console(file=io.StringIO()), None))
    declared = Stage("s", print, StageParams())
    return InProcess(declared, folder.name, folder, {}, progress, RunLog("", "run"))


@pytest.fixture(params=[(10**9, 10**9, 1000), (1, 1, 7), (900, 13, 16)])
def corpus(request, tmp_path, monkeypatch):
    """A corpus that is one slice, or cut at every row group and pair, or in between."""
    size, pairs, rows = request.param
    monkeypatch.setattr(text_sample, "SLICE_BYTES", size)
    monkeypatch.setattr(text_sample, "SLICE_PAIRS", pairs)
    store = Store(tmp_path)
    documents = [
        commit_tables(store.sub(f"d{i}"), [pa.table({"text": pa.array(texts, pa.string())})],
                      row_group_rows=rows)
        for i, texts in enumerate(TEXTS)
    ]  # fmt: skip
    kept = commit_tables(store.sub("c"), [kept_table(PAIRS)], row_group_rows=rows, name="pairs")
    return lambda seed: Corpus(documents, kept, seed)


@pytest.mark.parametrize("limit", [0, 1, 20, 100, NUM_LINES - 1, NUM_LINES, 10**6])
def test_the_sample_of_documents_is_that_of_the_whole_corpus(tmp_path, corpus, limit):
    context = context_at(Store(tmp_path / "out"))
    drawn = draw(context, corpus(3), "documents", limit, NUM_LINES)
    assert list(drawn) == expected_documents(TEXTS, limit, 3)


@pytest.mark.parametrize("limit", [0, 1, 50, NUM_CAPTIONS - 1, NUM_CAPTIONS, 10**6])
def test_the_sample_of_captions_is_that_of_the_whole_corpus(tmp_path, corpus, limit):
    context = context_at(Store(tmp_path / "out"))
    drawn = draw(context, corpus(5), "captions", limit, NUM_CAPTIONS)
    assert list(drawn) == expected_captions(PAIRS, limit, 5)
    assert limit != 50 or list(drawn) != expected_captions(PAIRS, limit, 6)


def test_the_whole_corpus_is_counted(tmp_path, corpus):
    counts = count_texts(context_at(Store(tmp_path / "out")), corpus(0))
    documents = Counter()
    for number, texts in enumerate(TEXTS):
        documents[f"documents/{number}"] = len(texts)
        documents[f"lines/{number}"] = len(LINES[number])
        documents[f"words/{number}"] = sum(len(text.split()) for text in texts)
        documents[f"characters/{number}"] = sum(map(len, LINES[number]))
    assert documents == counts["documents"]
    assert sum(n for name, n in counts["captions"].items() if "lines" in name) == NUM_CAPTIONS
    assert sum(n for name, n in counts["captions"].items() if "words" in name) == 3 * NUM_CAPTIONS


@pytest.mark.parametrize(("limit", "total"), [(1, 10**4), (10**3, 10**5), (10**4, 10**4 + 1)])
@pytest.mark.parametrize("seed", range(3))
def test_little_more_than_the_sample_is_written(limit, total, seed):
    keys = np.random.default_rng(seed).random(total)
    passed = int((keys < threshold_for(limit, total)).sum())
    assert min(limit, total - 1) < passed <= limit + 20 * (limit + 50) ** 0.5


def test_too_low_a_threshold_is_raised_until_enough_lines_pass(tmp_path, corpus, monkeypatch):
    folder = Store(tmp_path / "out")
    monkeypatch.setattr(text_sample, "threshold_for", lambda limit, total: 0.3 * limit / total)
    drawn = draw(context_at(folder), corpus(0), "documents", 100, NUM_LINES)
    assert list(drawn) == expected_documents(TEXTS, 100, 0)
    attempts = {name.split("-")[1] for name in read_parts(folder)}
    assert attempts == {"0", "1", "2"}


def test_another_attempt_reads_what_was_drawn_and_draws_nothing_anew(tmp_path, corpus, monkeypatch):
    folder = Store(tmp_path / "out")
    first = list(draw(context_at(folder), corpus(0), "documents", 100, NUM_LINES))
    monkeypatch.setattr(Corpus, "read", None)
    assert list(draw(context_at(folder), corpus(0), "documents", 100, NUM_LINES)) == first
