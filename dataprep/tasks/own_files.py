"""Own annotations of every task: CSV, TSV or JSON lines with named columns.

In JSON, a cell that may hold several values is a list or a single value; in CSV and TSV, the
values are separated by ``|``. A label may be a text, a number, true or false. A row is named by the
number of its line.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import MALFORMED_ENTRY
from dataprep.sources.compression import SUFFIXES
from dataprep.sources.json_keys import check_keys
from dataprep.sources.lines import ListError, check_json_lines
from dataprep.sources.own_lists import TextForm, check_columns, header, json_rows, table_rows
from dataprep.tasks.example import (
    EMPTY_TEXT,
    NO_LABELS,
    UNKNOWN_LABEL,
    Example,
    bad,
    checked,
    example_of,
)
from dataprep.text import clean_caption

_JSON: Final = (".jsonl", ".ndjson", ".json")
_SEPARATOR: Final = "|"
_TRUTH: Final = {"true": "True", "1": "True", "false": "False", "0": "False"}
"The labels of sentences of two images, by what may stand for them in lower case."


class _CellError(ValueError):
    """A cell is missing or of another type; the message says which."""


@dataclass(frozen=True)
class OwnFile:
    """A file of named columns; the end of its name says which form it has."""

    path: Path
    columns: Sequence[str]
    "The columns that are read."
    quoting: bool | None = None
    "Whether fields may stand in double quotes; None: in CSV but not in TSV."

    def check(self) -> None:
        """Check that the file has its form and the columns.

        Raises:
            ListError: it has not; the message names the file.
        """
        form = self._form
        if form is None:
            check_json_lines(self.path)
            check_keys(self.path, self.columns)
        else:
            names = header(self.path, form, self._is_quoted)
            check_columns(self.path, names, list(dict.fromkeys(self.columns)))

    def rows(self) -> Iterator[tuple[str, str, Mapping[str, Any], str | None]]:
        """Yield (id, place in the file, cells by column, what is wrong or None) for each row.

        Raises:
            ListError: see :meth:`check`.
        """
        self.check()
        form = self._form
        rows: Iterator[tuple[int, dict[str, Any], str | None]] = (
            json_rows(self.path, None)
            if form is None
            else table_rows(self.path, form, None, quoting=self._is_quoted)
        )
        for number, row, problem in rows:
            yield f"{number:09d}", f"{self.path.name}:{number}", row, problem

    def several(self, row: Mapping[str, Any], column: str) -> list[str]:
        """Return the values of a cell that may hold several, without empty ones."""
        cell = row.get(column)
        if isinstance(cell, str) and self._form is not None:
            cell = cell.split(_SEPARATOR)
        cells = cell if isinstance(cell, list) else [cell]
        return [text for each in cells if (text := _value(each, column))]

    @property
    def _form(self) -> TextForm | None:
        """CSV or TSV; None for JSON lines."""
        name = self.path.name.lower()
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
        if name.endswith(_JSON):
            return None
        for form in ("csv", "tsv"):
            if name.endswith(f".{form}"):
                return form
        raise ListError(f"{self.path}: not named .jsonl, .csv or .tsv; rename the file")

    @property
    def _is_quoted(self) -> bool:
        return self._form == "csv" if self.quoting is None else self.quoting


def read_questions(
    file: OwnFile, image: str, question: str, answer: str | None
) -> Iterator[Example]:
    """Yield the questions of a file; the main label is the most frequent answer, the first of it.

    Args:
        file: the file.
        image: column of the image's path.
        question: column of the question.
        answer: column of the answers; None without any.

    Raises:
        ListError: the file has another format, or no row can be read.
    """

    def made(id_: str, where: str, row: Mapping[str, Any]) -> Example:
        answers = file.several(row, answer) if answer else []
        if answer and not answers:
            return bad(id_, where, NO_LABELS, f"{answer} is empty")
        return example_of(
            id_,
            where,
            images=[_path(row, image)],
            texts=[_text(row, question)],
            labels=answers,
            main_label=max(answers, key=answers.count, default=""),
        )

    return _read(file, made)


def read_image_pairs(
    file: OwnFile, images: Sequence[str], sentence: str, label: str | None
) -> Iterator[Example]:
    """Yield the sentences of two images; labels become ``True`` and ``False``.

    Args:
        file: the file.
        images: columns of the images' paths.
        sentence: column of the sentence.
        label: column of the label; None without any.

    Raises:
        ListError: the file has another format, or no row can be read.
    """

    def made(id_: str, where: str, row: Mapping[str, Any]) -> Example:
        found = _value(row.get(label), label) if label else ""
        if label and not found:
            return bad(id_, where, NO_LABELS, f"{label} is empty")
        if label and found.lower() not in _TRUTH:
            return bad(id_, where, UNKNOWN_LABEL, f"{label} = {found}, expected true or false")
        return example_of(
            id_,
            where,
            images=[_path(row, image) for image in images],
            texts=[_text(row, sentence)],
            labels=[_TRUTH[found.lower()]] if label else [],
        )

    return _read(file, made)


def read_captions(file: OwnFile, image: str, caption: str | None) -> Iterator[Example]:
    """Yield the images of a file, each with the captions of all of its rows.

    Args:
        file: the file.
        image: column of the image's path, which is the example's id.
        caption: column of the caption; in JSON it may hold a list of captions. None without any.

    Raises:
        ListError: the file has another format, or no row can be read.
    """
    examples: dict[str, Example] = {}

    def made(id_: str, where: str, row: Mapping[str, Any]) -> Example:
        if caption is None:
            return example_of(path := _path(row, image), where, images=[path])
        cell = row.get(caption)
        cells = cell if isinstance(cell, list) else [cell]
        if any(each is not None and not isinstance(each, str) for each in cells):
            raise _CellError(f"{caption} = {cell!r}, expected a text"[:200])
        path = _path(row, image)
        texts = [text for each in cells if (text := clean_caption(each or ""))]
        if not texts:
            return bad(id_, where, EMPTY_TEXT, f"{caption} is empty")
        return example_of(path, where, images=[path], texts=texts)

    for example in _rows(file, made):
        key = f"{example.id}\0" if example.reason else example.id  # a path holds no zero byte
        if key not in examples:
            examples[key] = example
        else:
            first = examples[example.id]
            examples[example.id] = replace(first, texts=(*first.texts, *example.texts))
    return checked(examples.values(), file.path)


def read_labels(file: OwnFile, image: str, label: str | None) -> Iterator[Example]:
    """Yield the images of a file with one or several labels each.

    Args:
        file: the file.
        image: column of the image's path.
        label: column of the labels; None without any.

    Raises:
        ListError: the file has another format, or no row can be read.
    """

    def made(id_: str, where: str, row: Mapping[str, Any]) -> Example:
        labels = list(dict.fromkeys(file.several(row, label))) if label else []
        if label and not labels:
            return bad(id_, where, NO_LABELS, f"{label} is empty")
        return example_of(id_, where, images=[_path(row, image)], labels=labels)

    return _read(file, made)


def read_sentences(file: OwnFile, sentences: Sequence[str], label: str | None) -> Iterator[Example]:
    """Yield the sentences of a file, or pairs of them.

    Args:
        file: the file.
        sentences: columns of the sentences.
        label: column of the label or number; None without any.

    Raises:
        ListError: the file has another format, or no row can be read.
    """

    def made(id_: str, where: str, row: Mapping[str, Any]) -> Example:
        found = _value(row.get(label), label) if label else ""
        if label and not found:
            return bad(id_, where, NO_LABELS, f"{label} is empty")
        texts = [_text(row, sentence) for sentence in sentences]
        return example_of(id_, where, texts=texts, labels=[found] if label else [])

    return _read(file, made)


_Maker = Callable[[str, str, Mapping[str, Any]], Example]
"Makes the example of a row of an id and a place in the file; may raise _CellError."


def _read(file: OwnFile, made: _Maker) -> Iterator[Example]:
    return checked(_rows(file, made), file.path)


def _rows(file: OwnFile, made: _Maker) -> Iterator[Example]:
    for id_, where, row, problem in file.rows():
        try:
            yield bad(id_, where, MALFORMED_ENTRY, problem) if problem else made(id_, where, row)
        except _CellError as error:
            yield bad(id_, where, MALFORMED_ENTRY, str(error))


def _text(row: Mapping[str, Any], column: str) -> str:
    text = row.get(column)
    if not isinstance(text, str):
        raise _CellError(f"{column} = {text!r}, expected a text"[:200])
    return text


def _path(row: Mapping[str, Any], column: str) -> str:
    if not (path := _text(row, column).strip()):
        raise _CellError(f"{column} is empty, expected the path of an image")
    return path


def _value(cell: Any, column: str) -> str:
    """Return a label as a text without surrounding spaces; empty for null."""
    if cell is None or isinstance(cell, str):
        return (cell or "").strip()
    if isinstance(cell, bool | int | float):
        return str(cell) if isinstance(cell, bool) else json.dumps(cell)
    raise _CellError(f"{column} = {cell!r}, expected a text or a number"[:200])
