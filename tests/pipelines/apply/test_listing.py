"""Listing of inputs: every file, row and line ends in exactly one of rows and rejects."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.sources.members import MemberError
from orchestration.errors import RecipeError
from pipelines.apply.inputs import InputParams, Location, input_slices
from pipelines.apply.listing import list_slice
from pipelines.apply.rows import image_bytes
from pipelines.commands.apply import answer
from pipelines.commands.apply_model import apply_recipe
from tests.pipelines.apply import drawn


def params(
    *images: Path, texts: tuple[Path, ...] = (), given: tuple[str, ...] = (), **others: Any
) -> InputParams:
    return InputParams(
        images=tuple(map(Location.of, images)),
        text_files=tuple(map(Location.of, texts)),
        texts=given,
        **{"image_column": "image", **others},
    )


def listed(given: InputParams) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows, rejects = [], []
    for slice_ in input_slices(given):
        some, bad = list_slice(slice_.payload, given.image_column, given.question, "inputs")
        assert len(some) + len(bad) == slice_.num_rows
        rows += some
        rejects += bad
    return rows, rejects


def test_a_folder_is_listed_with_its_subfolders_in_the_order_of_names(tmp_path):
    drawn.write_images(tmp_path / "b", 2)
    (first,) = drawn.write_images(tmp_path / "a", 1)
    (tmp_path / ".hidden").write_bytes(b"")
    rows, rejects = listed(params(tmp_path))
    assert [row["path"] for row in rows] == [
        str(first), str(tmp_path / "b/000.png"), str(tmp_path / "b/001.png"),
    ]  # fmt: skip
    assert all(row["id"] == row["path"] and row["row"] is None for row in rows)
    assert image_bytes(rows[0]) == first.read_bytes()
    assert not rejects


def test_a_name_that_is_not_utf_8_is_listed_and_read(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(name)).write_bytes(drawn.image_bytes(3))
    ((row,), _) = listed(params(tmp_path))
    assert row["id"] == f"{tmp_path}/caf\\xe9.png"
    assert image_bytes(row) == drawn.image_bytes(3)


@pytest.mark.parametrize("form", ["bytes", "large", "struct", "path", "dictionary"])
def test_images_of_parquet_are_bytes_structs_or_paths(tmp_path, form):
    paths = drawn.write_images(tmp_path / "images", 3)
    data = [path.read_bytes() for path in paths]
    names = [f"images/{path.name}" for path in paths]
    columns = {
        "bytes": pa.array(data, pa.binary()),
        "large": pa.array(data, pa.large_binary()),
        "struct": pa.array([{"bytes": each, "path": None} for each in data]),
        "path": pa.array(names),
        "dictionary": pa.array(names).dictionary_encode(),
    }
    file = tmp_path / "some.parquet"
    pq.write_table(pa.table({"picture": columns[form]}), file, row_group_size=2)
    rows, rejects = listed(params(file, image_column="picture"))
    assert [image_bytes(row) for row in rows] == data
    assert [row["id"] for row in rows] == [f"{file}:{i}" for i in (1, 2, 3)]
    shown = [str(path) for path in paths] if form in ("path", "dictionary") else [str(file)] * 3
    assert [row["path"] for row in rows] == shown
    assert not rejects


def test_a_parquet_file_of_pandas_gives_texts_and_rejects_empty_ones(tmp_path):
    frame = pd.DataFrame({"caption": ["two  red\nsquares", "", None, " \t", "Caf\u0065\u0301"]})
    frame.to_parquet(tmp_path / "texts.parquet")
    given = params(tmp_path / "texts.parquet", image_column=None, text_column="caption")
    rows, rejects = listed(given)
    assert [(row["row"], row["text"]) for row in rows] == [(1, "two red squares"), (5, "Café")]
    assert all(row["file"] is None for row in rows)
    assert [(each["sample_id"].rpartition(":")[2], each["reason"]) for each in rejects] == [
        ("2", "empty_text"), ("3", "empty_text"), ("4", "empty_text"),
    ]  # fmt: skip


def test_questions_stand_beside_the_images_of_parquet(tmp_path):
    table = {"image": [drawn.image_bytes(1), None], "q": ["how many?", "where?"]}
    pq.write_table(pa.table(table), tmp_path / "vqa.parquet")
    rows, _ = listed(params(tmp_path / "vqa.parquet", text_column="q"))
    assert [row["text"] for row in rows] == ["how many?", "where?"]
    with pytest.raises(Exception, match="missing_file: row 2 has no image in image"):
        image_bytes(rows[1])


@pytest.mark.parametrize("second", [None, "other"])
def test_an_image_beside_a_parquet_file_of_questions_is_a_reject(tmp_path, second):
    (image,) = drawn.write_images(tmp_path / "z", 1)
    (tmp_path / "README.md").write_text("two files\n")
    data = {"image": [b"x"], "other": [b"x"], "asks": ["what is it?"]}
    pq.write_table(pa.table(data), tmp_path / "a.parquet")
    given = params(tmp_path, text_column="asks", second_image_column=second)
    rows, rejects = listed(given)
    assert [row["path"] for row in rows] == [str(tmp_path / "a.parquet")]
    assert [each["sample_id"] for each in rejects] == [str(tmp_path / "README.md"), str(image)]
    assert {each["reason"] for each in rejects} == {"empty_text"}
    assert all("no Parquet file, which alone has the column asks" in e["detail"] for e in rejects)


def test_a_question_is_asked_about_every_image(tmp_path):
    drawn.write_images(tmp_path, 2)
    rows, _ = listed(params(tmp_path, question="how many?"))
    assert [row["text"] for row in rows] == ["how many?"] * 2


def test_lines_of_a_text_file_and_texts_are_rows(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"one\n\n  \ntwo\r\n\xff\xfe bad\nlast")
    rows, rejects = listed(params(texts=(tmp_path / "t.txt",), given=("given", " ")))
    assert [(row["row"], row["text"]) for row in rows] == [
        (1, "one"), (4, "two"), (6, "last"), (1, "given"),
    ]  # fmt: skip
    assert [each["reason"] for each in rejects] == [
        "empty_text", "empty_text", "malformed_line", "empty_text",
    ]  # fmt: skip
    assert rejects[-1]["sample_id"] == "text:2"


def test_a_damaged_row_group_rejects_its_rows_and_no_others(tmp_path):
    file = tmp_path / "some.parquet"
    table = pa.table({"text": [f"text number {i} {i * 7919}" for i in range(400)]})
    pq.write_table(table, file, row_group_size=100, compression="zstd", use_dictionary=False)
    start = pq.ParquetFile(file).metadata.row_group(2).column(0).data_page_offset
    data = bytearray(file.read_bytes())
    data[start : start + 200] = bytes(200)
    file.write_bytes(data)
    rows, rejects = listed(params(file, image_column=None, text_column="text"))
    good = [*range(1, 201), *range(301, 401)]
    assert [row["row"] for row in rows] == good
    assert {each["reason"] for each in rejects} == {"damaged_file"}
    assert len(rejects) == 100


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_column": "foto"}, r"no column foto; it has image, text; name one with --image-"),
        ({"image_column": "number"}, "no column number"),
        ({"image_column": None, "text_column": "txt"}, "no column txt; it has image, text"),
        ({"image_column": None, "text_column": "count"}, "no column count"),
        ({"text_column": "asks"}, "no column asks; .* name one with --question-column"),
        (
            {"text_column": "says", "second_image_column": "image"},
            "no column says; .* name one with --text-column",
        ),
    ],
)
def test_a_column_that_is_not_there_is_one_sentence(tmp_path, given, words):
    pq.write_table(pa.table({"image": [b"x"], "text": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=words):
        listed(params(tmp_path / "a.parquet", **given))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_column": None, "text_column": "caption"}, "--text-column caption: there is no"),
        ({"text_column": "asks"}, "--question-column asks: there is no Parquet file among"),
        ({"image_column": "foto"}, "--image-column foto: there is no Parquet file among"),
    ],
)
def test_a_column_of_inputs_without_columns_is_refused(tmp_path, given, words):
    (tmp_path / "list.csv").write_text("image,caption\n1.jpg,a dog\n")
    for inputs in (tmp_path, tmp_path / "list.csv"):
        with pytest.raises(RecipeError, match=words):
            listed(params(inputs, **given))
    with pytest.raises(RecipeError, match=words):
        listed(params(texts=(tmp_path / "list.csv",), **given))


def test_columns_of_numbers_are_refused(tmp_path):
    pq.write_table(pa.table({"image": [1], "text": [2.5]}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="column image is of type int64; images are bytes"):
        listed(params(tmp_path / "a.parquet"))
    with pytest.raises(RecipeError, match="column text is of type double, expected string"):
        listed(params(tmp_path / "a.parquet", image_column=None, text_column="text"))


def test_a_file_that_is_no_parquet_and_an_empty_folder_are_one_sentence(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(RecipeError, match=r"a\.parquet: not a Parquet file"):
        listed(params(tmp_path / "a.parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="empty: the folder holds no files; correct"):
        listed(params(tmp_path / "empty"))


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text_or_question_is_refused_in_one_line(text):
    for operation, inputs in (
        ("embed", {"texts": [text]}),
        ("answer", {"texts": [], "question": text}),
    ):
        with pytest.raises(RecipeError, match=r"is empty; give a text$"):
            apply_recipe(operation, {"model": "m"}, inputs, [])


def test_a_question_and_a_column_of_questions_exclude_each_other(tmp_path):
    with pytest.raises(RecipeError, match="exclude each other"):
        answer("m", [tmp_path], question="what?", question_column="question")


@pytest.mark.parametrize("column", [None, "both", "image"])
def test_images_and_questions_are_two_columns(tmp_path, column):
    name = column or "image"
    pq.write_table(pa.table({name: [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=f"column {name} is named for the images and for the q"):
        file = tmp_path / "a.parquet"
        answer(str(file), [file], question_column=name, image_column=column)


def test_a_struct_without_bytes_names_the_file_of_its_image(tmp_path):
    """As the library ``datasets`` writes images that are not embedded."""
    (near,) = drawn.write_images(tmp_path / "images", 1)
    cells = [
        {"bytes": None, "path": str(near)},
        {"bytes": None, "path": "images/000.png"},
        {"bytes": drawn.image_bytes(5), "path": "gone.png"},
    ]
    bad = [{"bytes": None, "path": None}, {"bytes": b"", "path": str(near)}, None]
    bad += [{"bytes": None, "path": "images/gone.png"}, {"bytes": None, "path": "a\0b"}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([*cells, *bad], kind)})
    pq.write_table(table, tmp_path / "some.parquet")
    rows, _ = listed(params(tmp_path / "some.parquet"))
    data = near.read_bytes()
    assert [image_bytes(row) for row in rows[:3]] == [data, data, drawn.image_bytes(5)]
    for row in rows[3:]:
        with pytest.raises(MemberError, match="missing_file"):
            image_bytes(row)


@pytest.mark.parametrize(
    ("name", "words"), [("", "a folder; name a file with a text"), ("no.txt", "no such file")]
)
def test_a_list_of_texts_that_is_no_file_is_one_sentence(tmp_path, name, words):
    with pytest.raises(RecipeError, match=f"{tmp_path / name}: {words}"):
        listed(params(texts=(tmp_path / name,)))
