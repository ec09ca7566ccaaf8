"""Slices of files: ranges of whole lines, row groups of Parquet, or the files of a folder.

A list or a corpus is one file, or a folder of parts. The payload of a slice names its part by
``part``: its path within the folder, or an empty string where there is no folder.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from dataprep.sources import own_lists
from dataprep.sources.compression import SUFFIXES, compression_of
from dataprep.sources.folders import files_in
from dataprep.sources.lines import LineRange, ListError, about_lines, check_text, line_ranges
from dataprep.sources.parquet_files import open_parquet, wrong_types
from orchestration import Slice
from orchestration.slices import runs

PARQUET: Final = ("*.parquet", "*.parq")
_MAX_FILES: Final = 2048
_SAMPLED_PARTS: Final = 8
"Number of parts from which the lines of a folder are estimated."


def text_patterns(*suffixes: str) -> tuple[str, ...]:
    """Return the patterns of the parts of a list: each suffix, plain and compressed."""
    return tuple(f"*{suffix}{packed}" for suffix in suffixes for packed in ("", *SUFFIXES))


def parts_of(location: Path, patterns: Sequence[str]) -> list[str]:
    """Return the parts of a list or corpus: those of a folder, else one empty string.

    Raises:
        ListError: the folder holds no such part or stands in the place of a file, there is no
            file, or all parts are empty.
    """
    if not location.exists():
        raise ListError(f"{location}: no such file; correct the path in the recipe")
    if location.is_dir() and not patterns:
        raise ListError(f"{location}: a folder; name a file in the recipe")
    parts = files_in(location, *patterns) if location.is_dir() else [""]
    if not any((location / part).stat().st_size for part in parts):
        raise ListError(f"{location}: empty, there is nothing to read")
    return parts


def line_slices(
    location: Path, patterns: Sequence[str], num_lines: int, check: Callable[[Path], None]
) -> Iterator[Slice]:
    """Cut text files into slices of whole lines; :func:`lines_of` reads one.

    Args:
        location: the file, or the folder of parts.
        patterns: names of the parts in a folder.
        num_lines: lines per slice.
        check: raises ListError for a part without the format of its source.

    Raises:
        ListError: a part is not UTF-8 text, or ``check`` refuses it.
    """
    ranges = []
    for part in parts_of(location, patterns):
        check(location / part)
        ranges += [(part, line_range) for line_range in line_ranges(location / part, num_lines)]
    for i, (part, line_range) in enumerate(ranges):
        yield Slice(f"{i:06d}", {"part": part, **vars(line_range)}, line_range.num_lines)


def document_line_slices(
    location: Path,
    patterns: Sequence[str],
    num_lines: int,
    num_bytes: int,
    check: Callable[[Path], None],
) -> Iterator[Slice]:
    """Cut text files into slices of whole lines, of which none is larger than ``num_bytes``.

    A compressed file cannot be cut: it is one slice, whose process unpacks it as it reads it. The
    other arguments and the errors are those of :func:`line_slices`. A line of more than
    ``num_bytes`` is a slice of its own.
    """
    pieces: list[tuple[str, LineRange | None]] = []
    for part in parts_of(location, patterns):
        check(location / part)
        check_text(location / part)
        if compression_of(location / part) is None:
            pieces += [(part, each) for each in line_ranges(location / part, num_lines, num_bytes)]
        else:
            pieces.append((part, None))
    for i, (part, line_range) in enumerate(pieces):
        payload = {"part": part, **(vars(line_range) if line_range else {})}
        yield Slice(f"{i:06d}", payload, line_range.num_lines if line_range else None)


def lines_of(location: Path, slice_: Slice) -> tuple[Path, LineRange]:
    """Return the file and the lines of a slice of :func:`line_slices`."""
    path, line_range = document_lines_of(location, slice_)
    assert line_range is not None
    return path, line_range


def document_lines_of(location: Path, slice_: Slice) -> tuple[Path, LineRange | None]:
    """Return the file and the lines of a slice of :func:`document_line_slices`; None for all."""
    payload = dict(slice_.payload)
    path = location / payload.pop("part")
    return path, LineRange(**payload) if payload else None


def expected_lines(location: Path, patterns: Sequence[str], check: Callable[[Path], None]) -> int:
    """Estimate the number of lines; the arguments are those of :func:`line_slices`.

    Raises:
        ListError: a part is not UTF-8 text, or ``check`` refuses it.
    """
    paths = [location / part for part in parts_of(location, patterns)]
    for path in paths:
        check(path)
        check_text(path)
    sampled = paths[:: -(-len(paths) // _SAMPLED_PARTS)]
    total, num_bytes = (sum(p.stat().st_size for p in some) for some in (paths, sampled))
    return round(sum(map(about_lines, sampled)) * total / num_bytes) if num_bytes else 0


def row_group_slices(
    location: Path, texts: Sequence[str], lists: Sequence[str] = (), others: Sequence[str] = ()
) -> Iterator[Slice]:
    """Cut Parquet files into their row groups.

    A payload holds ``part``, ``group`` and ``first_row``.

    Args:
        location: the file, or the folder of parts.
        texts: columns that must hold texts.
        lists: those of them that may hold lists of texts too.
        others: columns of any type.

    Raises:
        ListError: a part is not Parquet, misses a column, or a column has another type.
    """
    number = 0
    for part in parts_of(location, PARQUET):
        metadata = _checked(location / part, texts, lists, others).metadata
        first = 1
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            payload = {"part": part, "group": group, "first_row": first}
            yield Slice(f"{number:06d}", payload, rows)
            first += rows
            number += 1


def joined_row_groups(location: Path, column: str, num_bytes: int) -> Iterator[Slice]:
    """Cut Parquet files into runs of row groups that hold up to ``num_bytes`` of a column of texts.

    A payload holds ``part``, ``group``, ``first_row``, and ``rows``: the number of rows of each row
    group from ``group`` on. A larger row group is a slice of its own.

    Raises:
        ListError: as :func:`row_group_slices`.
    """
    number = 0
    for part in parts_of(location, PARQUET):
        metadata = _checked(location / part, [column], [], []).metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        leaves = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        sizes = [group.column(leaves.index(column)).total_uncompressed_size for group in groups]
        first = 1
        for run in runs(sizes, num_bytes):
            rows = [groups[i].num_rows for i in run]
            payload = {"part": part, "group": run[0], "first_row": first, "rows": rows}
            yield Slice(f"{number:06d}", payload, sum(rows))
            first += sum(rows)
            number += 1


def parquet_rows(
    location: Path, texts: Sequence[str], lists: Sequence[str] = (), others: Sequence[str] = ()
) -> int:
    """Return the number of rows; arguments and errors are those of :func:`row_group_slices`."""
    return sum(
        int(_checked(location / part, texts, lists, others).metadata.num_rows)
        for part in parts_of(location, PARQUET)
    )


def file_slices(
    folder: Path, *patterns: str, num_bytes: int, num_files: int = _MAX_FILES
) -> Iterator[Slice]:
    """Make runs of the files of a folder slices; a payload holds ``names``, relative to the folder.

    Args:
        folder: the folder.
        patterns: names of the files.
        num_bytes: largest size of the files of a slice; a larger file is a slice of its own.
        num_files: largest number of files of a slice.

    Raises:
        ListError: there is no such file.
    """
    names = files_in(folder, *patterns)
    for i, run in enumerate(runs((_size(folder / name) for name in names), num_bytes, num_files)):
        yield Slice(f"{i:06d}", {"names": [names[j] for j in run]})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken link, whose reading gives a reject
        return 0


def file_per_slice(folder: Path, *patterns: str) -> Iterator[Slice]:
    """Make each file of a folder a slice; a payload holds ``name``, relative to the folder.

    Raises:
        ListError: there is no such file.
    """
    for i, name in enumerate(files_in(folder, *patterns)):
        yield Slice(f"{i:06d}", {"name": name})


def _checked(
    path: Path, texts: Sequence[str], lists: Sequence[str], others: Sequence[str]
) -> pq.ParquetFile:
    file = open_parquet(path)
    own_lists.check_columns(path, file.schema_arrow.names, [*texts, *others])
    if problem := wrong_types(file.schema_arrow, texts, lists):
        raise ListError(f"{path}: {problem}; cast the column, or name another one")
    return file
