"""Documents are packed row group by row group; the tokens are those of the whole slice at once."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration import Dataset, Slice, Stage
from orchestration.params import StageParams
from orchestration.slice_commit import commit_slice
from orchestration.storage.store import Store
from pipelines.tokens.held_out import is_held_out
from pipelines.tokens.text_tokens import Params, pack_slice, stage
from tests.committing import commit_tables
from tests.in_process import run_in_process
from tests.pipelines.tokens.drawing import documents_of
from tokenizer.packing import pack
from tokenizer.text import TextTokenizer, train

TEXTS = documents_of(4, 120)


@pytest.fixture(scope="module")
def model() -> bytes:
    lines = [line for text in TEXTS for line in text.split("\n") if line]
    return train(lines, vocab_size=25, character_coverage=1.0)


@pytest.fixture
def corpus(tmp_path, model):
    """A dataset of documents in small row groups, and a tokenizer."""
    table = pa.table({"doc_id": [f"d/{i}" for i in range(120)], "text": TEXTS})
    documents = commit_tables(Store(tmp_path / "d"), [table[:50], table[50:]], row_group_rows=9)
    files = {"spm.model": model}
    return documents, commit_tables(Store(tmp_path / "t"), [], row_group_rows=1, files=files)


@pytest.mark.parametrize(("start", "stop"), [(0, 120), (9, 50), (0, 1)])
@pytest.mark.parametrize("row_group_rows", [1, 7, 10_000])
def test_a_slice_is_packed_as_if_it_were_in_memory(tmp_path, corpus, start, stop, row_group_rows):
    documents, tokenizer = corpus
    params = Params(length=8, held_out_fraction=0.3, row_group_rows=row_group_rows)
    slice_ = Slice("0", {"dataset": 0, "start": start, "stop": stop})
    made = pack_slice(params, 1, [], tokenizer, [documents], slice_)
    part = commit_slice(Store(tmp_path / "out"), slice_, made, row_group_rows)
    text = TextTokenizer.load(tokenizer.fetch("spm.model"))
    num_left = 0
    for name, wanted in (("train", False), ("held_out", True)):
        chosen = [
            TEXTS[i] for i in range(start, stop)
            if is_held_out("document", f"d/{i}", 0.3, 1) is wanted
        ]  # fmt: skip
        sequences, left = pack(*text.encode_flat(chosen), 8)
        num_left += left
        found = pq.read_table(tmp_path / "out" / part.tables[name].path)["ids"].to_pylist()
        assert found == sequences.tolist()
        assert all(rows == row_group_rows for rows in part.tables[name].row_groups[:-1])
    assert part.num_rows_in == stop - start
    assert part.counters == {"num_tokens_dropped": num_left}


@pytest.mark.parametrize("slice_bytes", [1, 3000, 1 << 26])
def test_every_document_is_in_one_slice(tmp_path, corpus, slice_bytes):
    documents, tokenizer = corpus
    declared = stage(
        Params(length=8, held_out_fraction=0, slice_bytes=slice_bytes),
        seed=0,
        documents=[Stage("documents/d", print, StageParams())],
        held_out=[],
        tokenizer=Stage("text_tokenizer", print, StageParams()),
    )
    folder = Store(tmp_path / "out")
    inputs = {"documents/d": documents.folder, "text_tokenizer": tokenizer.folder}
    run_in_process(declared, folder, inputs)
    made = Dataset.open(folder, "train")
    text = TextTokenizer.load(tokenizer.fetch("spm.model"))
    total = len(text.encode_flat(TEXTS)[0]) + 2 * len(TEXTS)
    assert made.manifest.num_rows_in == 120
    assert 8 * made.num_rows + made.manifest.counters["num_tokens_dropped"] == total
    assert (len(made.parts) == 1) == (slice_bytes == 1 << 26)
    sizes = np.array([p.num_rows for p in made.parts])
    assert (sizes > 0).any()
