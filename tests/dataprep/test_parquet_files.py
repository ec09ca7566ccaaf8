"""Parquet columns: types are compared before any row is read, and one bad row is one reject."""

import io
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.sources import documents, own_lists
from dataprep.sources.documents import BadDocument, Document
from dataprep.sources.entries import BadEntry
from dataprep.sources.parquet_files import wrong_types

TEXTS = ["a dog", None, "zwei H\u00fcnde"]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
     pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.binary())],
)  # fmt: skip
def test_columns_of_texts_are_read_whatever_their_type(tmp_path, kind):
    values = [t if t is None else t.encode() for t in TEXTS] if "binary" in str(kind) else TEXTS
    array = pa.array(values).cast(kind.value_type).dictionary_encode() if pa.types.is_dictionary(
        kind) else pa.array(values, kind)  # fmt: skip
    pq.write_table(pa.table({"text": array, "url": ["u"] * 3}), tmp_path / "p")
    schema = pq.read_schema(tmp_path / "p")
    assert wrong_types(schema, ["text", "url"], []) is None
    first, second, third = documents.read_parquet(tmp_path / "p", 0, 1, "text")
    assert (first, third) == (Document("000000001", "a dog"), Document("000000003", TEXTS[2]))
    assert isinstance(second, BadDocument) and "text is None" in second.detail
    entries = list(own_lists.read_parquet(tmp_path / "p", 0, 1, "url", "text"))
    assert entries[0].captions == ("a dog",) and isinstance(entries[1], BadEntry)


@pytest.mark.parametrize(
    "kind",
    [pa.int64(), pa.float32(), pa.bool_(), pa.timestamp("s"), pa.list_(pa.int8()),
     pa.struct([("text", pa.string())]), pa.null(), pa.map_(pa.string(), pa.string())],
)  # fmt: skip
def test_any_other_type_is_refused_with_its_name(kind):
    schema = pa.schema([("url", pa.string()), ("text", kind)])
    assert f"column text is of type {kind}" in wrong_types(schema, ["url", "text"], [])
    assert f"column text is of type {kind}" in wrong_types(schema, ["url", "text"], ["text"])


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.binary())]
)
def test_a_column_of_captions_may_be_a_list(tmp_path, kind):
    schema = pa.schema([("url", pa.string()), ("caption", kind)])
    captions = [["one", "two"], [None, "three"], [], None]
    if kind.value_type == pa.binary():
        captions = [c and [t and t.encode() for t in c] for c in captions]
    rows = pa.table({"url": ["http://a"] * 4, "caption": pa.array(captions, kind)}, schema)
    pq.write_table(rows, tmp_path / "p")
    assert "caption" in wrong_types(schema, ["url", "caption"], [])
    assert wrong_types(schema, ["url", "caption"], ["caption"]) is None
    found = list(own_lists.read_parquet(tmp_path / "p", 0, 1, "url", "caption"))
    assert [e.captions for e in found[:3]] == [("one", "two"), ("three",), ()]
    assert isinstance(found[3], BadEntry)


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_the_rows_beside_one_that_is_not_utf8_come_through(tmp_path, kind):
    data = pa.array([b"good", b"caf\xe9", b"also good"])
    column = data.view(pa.string()) if kind == pa.string() else data
    pq.write_table(pa.table({"text": column, "url": ["http://a"] * 3}), tmp_path / "p")
    first, bad, last = documents.read_parquet(tmp_path / "p", 0, 1, "text")
    assert (first.text, last.text) == ("good", "also good")
    assert isinstance(bad, BadDocument) and "not UTF-8" in bad.detail
    first, bad, last = own_lists.read_parquet(tmp_path / "p", 0, 1, "url", "text")
    assert isinstance(bad, BadEntry) and (first.captions, last.number) == (("good",), 3)


def test_the_row_groups_beside_a_damaged_one_come_through(tmp_path):
    rows = pa.table({"text": [f"{i} " * 200 for i in range(30)]})
    out = io.BytesIO()
    pq.write_table(rows, out, row_group_size=10, compression="gzip", use_dictionary=False)
    data = bytearray(out.getvalue())
    column = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1).column(0)
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    (tmp_path / "p").write_bytes(bytes(data))
    found = [list(documents.read_parquet(tmp_path / "p", g, 1 + 10 * g, "text")) for g in range(3)]
    assert [len(group) for group in found] == [10, 1, 10]
    assert "row group 1" in found[1][0].detail


def test_a_row_group_of_any_length_is_read_a_few_rows_at_a_time(tmp_path):
    schema = pa.schema([("url", pa.string()), ("caption", pa.string()), ("image", pa.binary())])
    urls = pa.array([f"http://a.org/{i:060d}" for i in range(100_000)])
    rows = pa.table([urls, urls, urls.cast(pa.binary())], schema)
    pq.write_table(rows, tmp_path / "p", row_group_size=len(rows), use_dictionary=False)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    peak_of_arrow = number = 0
    for entry in own_lists.read_parquet(tmp_path / "p", 0, 1, "url", "caption"):
        number += 1
        assert entry.number == number
        if number % 4096 == 1:
            peak_of_arrow = max(peak_of_arrow, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == len(rows)
    assert max(peak, peak_of_arrow) < rows.nbytes / 3
