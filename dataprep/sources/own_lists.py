"""Own lists of URLs and captions, read by column name: CSV, TSV, JSON lines, Parquet.

CSV and TSV have a header. A quoted field follows RFC 4180, but a record must not span lines: a line
break within quotes makes bad entries. Without quoting, the fields are what stands between the
separators. JSON lines and Parquet may hold a list of captions instead of one. Lines are numbered
from 1, the header included; rows of Parquet are numbered from 1.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dataprep.sources.entries import BadEntry, Entry
from dataprep.sources.lines import LineRange, ListError, first_line, read_lines
from dataprep.sources.parquet_files import PARQUET_DAMAGE, read_rows

TextForm = Literal["csv", "tsv"]
csv.field_size_limit(1 << 30)  # a column that nobody reads may hold a whole page


@dataclass(frozen=True)
class SplitColumns:
    """The columns of a list that say which rows are held out from training."""

    split: str | None = None
    "Name of the column of the row's split; an empty cell says nothing."
    held_out_splits: frozenset[str] = frozenset()
    "Splits that are held out, in lower case; rows of any other split are trained on."
    group: str | None = None
    "Name of the column of the row's group, a text or an integer; an empty cell is no group."

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name in (self.split, self.group) if name is not None)

    def read(self, row: Mapping[str, object]) -> tuple[bool | None, str | None]:
        """Return whether a row is held out, and its group; None for what it does not say.

        Raises:
            ValueError: a cell is missing or of another type.
        """
        split, group = (_cell(row, name) for name in (self.split, self.group))
        return split.lower() in self.held_out_splits if split else None, group


NO_SPLIT: Final = SplitColumns()
_SEPARATORS: Final[dict[TextForm, str]] = {"csv": ",", "tsv": "\t"}


def header(path: Path, form: TextForm, quoting: bool) -> list[str]:
    """Return the names in the first line of a CSV or TSV file.

    Raises:
        ListError: the file is not UTF-8 text, or its first line is empty or not CSV.
    """
    try:
        names = _record(first_line(path), form, quoting)
    except csv.Error as error:
        raise ListError(f"{path}: the first line is not a header ({error})") from None
    if not names:
        raise ListError(f"{path}: the first line is empty, expected a header")
    return names


def check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """Check that a file has the given columns.

    Raises:
        ListError: a column is missing, or its name stands twice; the message names the columns.
    """
    missing = [column for column in columns if column not in names]
    if missing:
        raise ListError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(names)}; correct the "
            "name in the file or in the recipe"
        )
    if repeated := [column for column in columns if names.count(column) > 1]:
        raise ListError(f"{path}: several columns are named {', '.join(repeated)}; rename one")


def read_table(
    path: Path,
    form: TextForm,
    line_range: LineRange,
    url: str,
    caption: str,
    *,
    quoting: bool,
    split: SplitColumns = NO_SPLIT,
) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of lines of CSV or TSV."""
    for number, row, problem in table_rows(path, form, line_range, quoting=quoting):
        if problem is None:
            yield _entry(number, row, url, caption, split)
        else:
            yield BadEntry(number, problem)


def table_rows(
    path: Path, form: TextForm, line_range: LineRange | None, *, quoting: bool
) -> Iterator[tuple[int, dict[str, str], str | None]]:
    """Yield (line number, cells by column, what is wrong or None) of a range of lines, or of all.

    Raises:
        ListError: the file is not UTF-8 text, or its first line is no header.
    """
    names = header(path, form, quoting)
    for number, text, problem, _ in read_lines(path, line_range):
        if number == 1:
            continue
        try:
            values = _record(text, form, quoting) if problem is None else []
        except csv.Error as error:
            problem = f"not {form.upper()} ({error})"
        if problem is None and len(values) != len(names):
            problem = f"{len(values)} fields, the header has {len(names)}"
        yield number, {} if problem else dict(zip(names, values, strict=True)), problem


def read_jsonl(
    path: Path, line_range: LineRange, url: str, caption: str, split: SplitColumns = NO_SPLIT
) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of JSON lines."""
    for number, row, problem in json_rows(path, line_range):
        if problem is None:
            yield _entry(number, row, url, caption, split)
        else:
            yield BadEntry(number, problem)


def json_rows(
    path: Path, line_range: LineRange | None
) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    """Yield (line number, object, what is wrong or None) of a range of JSON lines, or of all."""
    for number, text, problem, _ in read_lines(path, line_range):
        row: Any = {}
        if problem is None:
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                problem = f"{type(error).__name__}: {error}"
        if not isinstance(row, dict):
            problem = f"expected an object, found {type(row).__name__}"
        yield number, {} if problem else row, problem


def read_parquet(
    path: Path,
    group: int,
    first_row: int,
    url: str,
    caption: str,
    split: SplitColumns = NO_SPLIT,
) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a row group whose first row has number ``first_row``.

    Damage ends it with a bad entry.
    """
    columns = list(dict.fromkeys((url, caption, *split.names)))
    number = first_row
    try:
        for cells in read_rows(path, group, columns):
            row = dict(zip(columns, cells, strict=True))
            yield _entry(number, row, url, caption, split)
            number += 1
    except PARQUET_DAMAGE as error:
        yield BadEntry(number, f"row group {group}: {type(error).__name__}: {error}")


def _entry(
    number: int, row: Mapping[str, object], url: str, caption: str, split: SplitColumns
) -> Entry | BadEntry:
    address, captions = row.get(url), row.get(caption)
    texts = [t for t in captions if t is not None] if isinstance(captions, list) else [captions]
    if not isinstance(address, str) or not all(isinstance(text, str) for text in texts):
        return BadEntry(number, f"{url} = {address!r}, {caption} = {captions!r}"[:200])
    try:
        held_out, group = split.read(row)
    except ValueError as error:
        return BadEntry(number, str(error))
    return Entry(number, address, tuple(map(str, texts)), held_out=held_out, group=group)


def _cell(row: Mapping[str, object], name: str | None) -> str | None:
    """Return a cell as a text without surrounding spaces; None for an empty one.

    Raises:
        ValueError: the row lacks it, or it is neither a text nor an integer.
    """
    if name is None:
        return None
    if name not in row:
        raise ValueError(f"no {name}")
    value = row[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name} = {value!r}, expected a text or an integer"[:200])
    return str(value).strip() or None


def _record(line: str, form: TextForm, quoting: bool) -> list[str]:
    if not quoting:
        return line.split(_SEPARATORS[form]) if line else []
    rows = list(csv.reader([line], delimiter=_SEPARATORS[form], strict=True))
    return rows[0] if rows else []
