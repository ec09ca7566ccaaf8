"""Own lists of URLs and captions, read by column name: CSV, TSV, JSON lines, Parquet.

CSV and TSV have a header. CSV follows RFC 4180, but a record must not span lines: a line break
within quotes makes bad entries. Lines are numbered from 1, the header included; rows of Parquet are
numbered from 1.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.sources.entries import BadEntry, Entry
from dataprep.sources.lines import LineRange, read_lines

PARQUET_DAMAGE: Final = (pa.ArrowException, OSError, ValueError)
"Raised by pyarrow on bytes that are not Parquet or not UTF-8."
TextForm = Literal["csv", "tsv", "jsonl"]


class ColumnError(ValueError):
    """A file does not have its format, has no header, or misses a column that the recipe names."""


def header(path: Path, form: TextForm) -> list[str]:
    """Return the names in the first line of a CSV or TSV file.

    Raises:
        ColumnError: the line is empty or not CSV.
    """
    with path.open("rb") as file:
        line = file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
    try:
        names = _record(line, form)
    except csv.Error as error:
        raise ColumnError(f"{path}: the first line is not a header ({error})") from None
    if not names:
        raise ColumnError(f"{path}: the first line is empty, expected a header")
    return names


def check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """Check that a file has the given columns.

    Raises:
        ColumnError: a column is missing; the message names the columns that exist.
    """
    missing = [column for column in columns if column not in names]
    if missing:
        raise ColumnError(f"{path}: no column {', '.join(missing)}; it has {', '.join(names)}")


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        ColumnError: the file is not Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except PARQUET_DAMAGE as error:
        raise ColumnError(f"{path}: not a Parquet file ({error})") from None


def read_text(
    path: Path, form: TextForm, line_range: LineRange, url: str, caption: str
) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of lines."""
    names = [] if form == "jsonl" else header(path, form)
    for number, line in read_lines(path, line_range):
        if number == 1 and names:
            continue
        try:
            text = line.decode("utf-8")
            if names:
                values = _record(text, form)
                if len(values) != len(names):
                    raise ValueError(f"{len(values)} fields, the header has {len(names)}")
                row = dict(zip(names, values, strict=True))
            else:
                row = json.loads(text)
            yield _entry(number, row, url, caption)
        except (ValueError, TypeError, csv.Error, RecursionError) as error:
            yield BadEntry(number, f"{type(error).__name__}: {error}")


def read_parquet(
    path: Path, group: int, first_row: int, url: str, caption: str
) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a row group whose first row has number ``first_row``.

    A damaged group is one bad entry.
    """
    try:
        rows = pq.ParquetFile(path).read_row_group(group, [url, caption]).to_pylist()
    except PARQUET_DAMAGE as error:
        yield BadEntry(first_row, f"row group {group}: {type(error).__name__}: {error}")
        return
    for i, row in enumerate(rows):
        yield _entry(first_row + i, row, url, caption)


def _entry(number: int, row: object, url: str, caption: str) -> Entry | BadEntry:
    if not isinstance(row, dict):
        return BadEntry(number, f"expected an object, found {type(row).__name__}")
    values = row.get(url), row.get(caption)
    if not isinstance(values[0], str) or not isinstance(values[1], str):
        return BadEntry(number, f"{url} = {values[0]!r}, {caption} = {values[1]!r}"[:200])
    return Entry(number, values[0], values[1])


def _record(line: str, form: TextForm) -> list[str]:
    rows = list(csv.reader([line], delimiter="\t" if form == "tsv" else ",", strict=True))
    return rows[0] if rows else []
