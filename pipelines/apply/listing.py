"""The rows of one slice of inputs, and the rejects among them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from dataprep.schemas import reject
from dataprep.sources.lines import LineRange, read_lines
from dataprep.sources.members import DAMAGED_FILE, MISSING_FILE
from dataprep.sources.names import safe_name
from dataprep.sources.parquet_files import PARQUET_DAMAGE, Undecodable, read_rows
from dataprep.tasks.example import EMPTY_TEXT
from dataprep.text import clean_caption
from pipelines.apply.rows import Which, image_type

Row = dict[str, Any]
Reject = dict[str, str | None]
_EMPTY: Final = "the text is empty"
_SECOND_EMPTY: Final = "the second text is empty"


def list_slice(
    payload: Mapping[str, Any], image_column: str | None, question: str | None, source: str
) -> tuple[list[Row], list[Reject]]:
    """Return the rows of ``rows.ROWS`` and the rejects of one slice.

    Args:
        payload: of a slice of ``inputs.input_slices``.
        image_column: Parquet column of the images; None reads no images of Parquet files.
        question: the text of each image, or None.
        source: what the rejects name as their source.
    """
    rows: list[Row] = []
    rejects: list[Reject] = []
    for row, problem in _listed(payload, image_column, question):
        if problem is None:
            rows.append(row)
        else:
            rejects.append(reject(row["id"], source, *problem, row["path"]))
    return rows, rejects


Listed = Iterator[tuple[Row, tuple[str, str] | None]]
"Rows, each with reason and detail of its reject, or None."


def _listed(payload: Mapping[str, Any], image_column: str | None, question: str | None) -> Listed:
    if "pairs" in payload:
        for path, second, text in payload["pairs"]:
            row = _row(f"{safe_name(path)} {safe_name(second)}", safe_name(path), file=path)
            row |= {"second_path": safe_name(second), "second_file": os.fsencode(second)}
            yield _checked(row, [text])
    elif "files" in payload:
        lacks = payload.get("lacks_column")
        words = f"no Parquet file, which alone has the column {lacks} with a text for each image"
        problem = None if lacks is None else (EMPTY_TEXT, words)
        for path in payload["files"]:
            yield _row(safe_name(path), safe_name(path), file=path, text=question), problem
    elif "parquet" in payload:
        yield from _of_parquet(payload, image_column, question)
    elif "lines" in payload:
        yield from _of_lines(payload)
    else:
        groups = zip(*filter(None, (payload["texts"], payload["second_texts"])), strict=True)
        for number, texts in enumerate(groups, start=payload["first"]):
            yield _checked(_row(f"text:{number}", None, row=number), texts)


def _of_lines(payload: Mapping[str, Any]) -> Listed:
    names = ("offset", "num_bytes", "first_line", "num_lines")
    path = payload["lines"]
    shown = safe_name(path)
    for line in read_lines(Path(path), LineRange(*(payload[name] for name in names))):
        row = _row(f"{shown}:{line.number}", shown, row=line.number)
        if line.problem is not None:
            yield row, (line.reason, line.problem)
        else:
            yield _checked(row, [line.text])


def _of_parquet(
    payload: Mapping[str, Any], image_column: str | None, question: str | None
) -> Listed:
    path, text_columns = payload["parquet"], payload["text_columns"]
    shown = safe_name(path)
    given: dict[Which, str | None] = {"": image_column, "second_": payload["second_image_column"]}
    images = [
        (which, name, image_type(pq.read_schema(path).field(name).type))
        for which, name in given.items()
        if name is not None
    ]
    columns = [*(name for _, name, kind in images if kind == "path"), *text_columns]
    number = payload["first"]
    end = number + payload["num_rows"]
    try:
        for cells in _cells(path, payload, columns):
            row = _row(f"{shown}:{number}", shown, row=number, text=question)
            values = dict(zip(columns, cells, strict=True))
            problem: tuple[str, str] | None = None
            for which, name, kind in images:
                problem = problem or _add_image(row, Path(path), which, name, kind, values)
            if problem is None and text_columns:
                row, problem = _checked(row, [values[name] for name in text_columns])
            yield row, problem
            number += 1
    except PARQUET_DAMAGE as error:
        words = f"row group {payload['group']}: {' '.join(str(error).split())}"
        for missing in range(number, end):
            row = _row(f"{shown}:{missing}", shown, row=missing)
            yield row, (DAMAGED_FILE, words)


def _cells(path: str, payload: Mapping[str, Any], columns: list[str]) -> Iterator[tuple[Any, ...]]:
    if columns:
        return read_rows(Path(path), payload["group"], dict.fromkeys(columns))
    return iter([()] * payload["num_rows"])


def _add_image(
    row: Row, file: Path, which: Which, column: str, kind: str | None, values: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Say in a row where an image of it lies; return what is wrong with it, or None."""
    if kind != "path":
        row |= {f"{which}file": os.fsencode(file), f"{which}column": column}
        return None
    name = values[column]
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return MISSING_FILE, f"column {column} names no image: {name!r}"
    path = str(file.parent / name)
    row |= {f"{which}file": os.fsencode(path), f"{which}path": safe_name(path)}
    return None


def _checked(row: Row, texts: Sequence[Any]) -> tuple[Row, tuple[str, str] | None]:
    """Return a row with its cleaned text or pair of texts, or with why one cannot be used."""
    for name, text in zip(("text", "second_text"), texts, strict=False):
        if isinstance(text, Undecodable):
            return row, (EMPTY_TEXT, f"no text: {text!r}")
        cleaned = clean_caption(text) if isinstance(text, str) else ""
        if not cleaned:
            return row, (EMPTY_TEXT, _EMPTY if name == "text" else _SECOND_EMPTY)
        row = {**row, name: cleaned}
    return row, None


def _row(
    name: str,
    path: str | None,
    *,
    row: int | None = None,
    file: str | None = None,
    text: str | None = None,
) -> Row:
    """Return a row whose image is ``file``, if that is given."""
    return {
        "id": name,
        "path": path,
        "row": row,
        "file": None if file is None else os.fsencode(file),
        "column": None,
        "second_path": None,
        "second_file": None,
        "second_column": None,
        "text": text,
        "second_text": None,
    }
