"""An own list says which of its rows are held out from training, and which belong together."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.images import ImageRules, encode_jpeg
from dataprep.schemas import IMAGES, INDEX
from orchestration.errors import RecipeError
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.download import SliceFetcher
from pipelines.ingest.local_images import LocalImagesEngine
from tests.pipelines.ingest.sources.test_lists import UNUSED, plan, run, source

ROWS = [
    {"url": "a.jpg", "caption": "a dog", "set": "train", "patient": "7"},
    {"url": "b.jpg", "caption": "a cat", "set": "Test ", "patient": "7"},
    {"url": "c.jpg", "caption": "a cow", "set": "val", "patient": ""},
    {"url": "d.jpg", "caption": "a pig", "set": "", "patient": "8"},
    {"url": "e.jpg", "caption": "an ox", "set": "extra", "patient": "8"},
]
EXPECTED = [(False, "7"), (True, "7"), (True, None), (None, "8"), (False, "8")]
FORMATS = ("csv", "tsv", "jsonl_pairs", "parquet_pairs")


def written(tmp_path, format_: str, rows=ROWS):
    """Write a list with pandas, a program that is not ours."""
    path, table = tmp_path / f"list.{format_}", pd.DataFrame(rows)
    if format_ == "jsonl_pairs":
        table.to_json(path, orient="records", lines=True)
    elif format_ == "parquet_pairs":
        table.to_parquet(path, row_group_size=2)
    else:
        table.to_csv(path, index=False, sep="," if format_ == "csv" else "\t")
    return path


@pytest.mark.parametrize("format_", FORMATS)
def test_a_row_has_the_split_and_the_group_that_its_list_names(tmp_path, format_):
    path = written(tmp_path, format_)
    params = source(format_, path, split_column="set", group_column="patient")
    found = run(params)
    assert [(row["held_out"], row["group"]) for row in found.rows] == EXPECTED
    assert not found.rejects and plan(params) in (5, 6)  # a header is estimated as a line
    plain = run(source(format_, path))
    assert {(row["held_out"], row["group"]) for row in plain.rows} == {(None, None)}


@pytest.mark.parametrize("format_", FORMATS)
def test_other_names_of_splits_are_a_field_of_the_source(tmp_path, format_):
    path = written(tmp_path, format_)
    found = run(source(format_, path, split_column="set", held_out_splits=["Extra"]))
    assert [row["held_out"] for row in found.rows] == [False, False, False, None, True]


def test_one_column_may_be_the_caption_and_the_group(tmp_path):
    path = written(tmp_path, "parquet_pairs")
    found = run(source("parquet_pairs", path, group_column="caption"))
    assert [row["group"] for row in found.rows] == [row["caption"] for row in ROWS]


@pytest.mark.parametrize(("format_", "group"), [("jsonl_pairs", 3), ("parquet_pairs", 3)])
def test_a_group_may_be_an_integer(tmp_path, format_, group):
    path = written(tmp_path, format_, [{"url": "a.jpg", "caption": "x", "g": group}])
    (row,) = run(source(format_, path, group_column="g")).rows
    assert row["group"] == "3"


@pytest.mark.parametrize("more", [{}, {"g": 1.5}, {"g": ["a"]}, {"g": True}, {"g": {"a": 1}}])
def test_a_group_that_is_missing_or_no_text_is_a_reject_that_names_it(tmp_path, more):
    path = tmp_path / "list"
    right = {"url": "b.jpg", "caption": "y", "g": "a"}
    rows = [{"url": "a.jpg", "caption": "x", **more}, right]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run(source("jsonl_pairs", path, group_column="g"))
    assert [row["group"] for row in found.rows] == ["a"]
    (reject,) = found.rejects
    assert reject["reason"] == "malformed_line" and "g" in reject["detail"].split(":", 1)[1]


@pytest.mark.parametrize("format_", ["csv", "tsv", "parquet_pairs"])
@pytest.mark.parametrize("field", ["split_column", "group_column"])
def test_a_column_that_the_list_lacks_is_refused_at_plan(tmp_path, format_, field):
    path = written(tmp_path, format_)
    with pytest.raises(RecipeError, match="no column nowhere; it has url, caption, set, patient"):
        plan(source(format_, path, **{field: "nowhere"}))


def test_stored_images_keep_split_and_group(tmp_path):
    jpeg = encode_jpeg(np.full((60, 80, 3), 120, np.uint8), 90)
    for row in ROWS:
        (tmp_path / row["url"]).write_bytes(jpeg)
    params = source("csv", written(tmp_path, "csv"), split_column="set", group_column="patient")
    index = pa.Table.from_pylist(run(params).rows, INDEX)
    engine = LocalImagesEngine(None, ImageRules(32, 90, 8, 10**6), tmp_path)
    output = SliceFetcher(DownloadParams(contact="x"), None, UNUSED, engine).fetch(index)
    stored = output.tables["data"]
    assert stored.schema.equals(IMAGES)
    found = zip(stored["held_out"].to_pylist(), stored["group"].to_pylist(), strict=True)
    assert list(found) == EXPECTED


def test_a_parquet_list_of_dictionary_columns_is_read(tmp_path):
    table = pa.table({
        "url": ["a.jpg", "b.jpg"],
        "caption": ["x", "y"],
        "set": pa.array(["test", "train"]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "list")
    found = run(source("parquet_pairs", tmp_path / "list", split_column="set"))
    assert [row["held_out"] for row in found.rows] == [True, False]
