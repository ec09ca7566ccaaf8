"""Slices of files: ranges of whole lines, row groups of Parquet, or the files of a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dataprep.sources import own_lists
from dataprep.sources.folders import files_in
from dataprep.sources.lines import line_ranges
from orchestration import Slice


def line_slices(path: Path, num_lines: int) -> list[Slice]:
    """Cut a text file into slices of whole lines; a payload holds the fields of a LineRange."""
    return [
        Slice(f"{i:06d}", vars(piece), piece.num_lines)
        for i, piece in enumerate(line_ranges(path, num_lines))
    ]


def row_group_slices(path: Path, columns: Sequence[str]) -> Iterator[Slice]:
    """Cut a Parquet file into its row groups; a payload holds ``group`` and ``first_row``.

    Raises:
        dataprep.sources.own_lists.ColumnError: the file is not Parquet, or lacks a column.
    """
    file = own_lists.open_parquet(path)
    own_lists.check_columns(path, file.schema_arrow.names, columns)
    first = 1
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        yield Slice(f"{group:06d}", {"group": group, "first_row": first}, rows)
        first += rows


def parquet_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file.

    Raises:
        dataprep.sources.own_lists.ColumnError: the file is not Parquet.
    """
    return int(own_lists.open_parquet(path).metadata.num_rows)


def file_per_slice(folder: Path, pattern: str) -> Iterator[Slice]:
    """Make each file of a folder a slice; a payload holds ``name``, relative to the folder."""
    for i, name in enumerate(files_in(folder, pattern)):
        yield Slice(f"{i:06d}", {"name": name})
