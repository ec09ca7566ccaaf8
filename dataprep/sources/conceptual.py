"""Conceptual Captions lists: a caption and a URL a line, parted by a tab, without a header.

CC3M (``Train_GCC-training.tsv``) is ``caption TAB url``, its captions lower-cased and split at
punctuation; CC12M (``cc12m.tsv``) is ``url TAB caption``, the reverse.
"""

from collections.abc import Iterator
from pathlib import Path

from dataprep.sources.entries import BadEntry, Entry
from dataprep.sources.lines import LineRange, read_lines
from dataprep.text import detokenize


def read_cc3m(path: Path, piece: LineRange) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of a CC3M list."""
    for number, columns in _columns(path, piece):
        if len(columns) == 2:
            yield Entry(number, url=columns[1], caption=detokenize(columns[0]))
        else:
            yield _bad(number, columns)


def read_cc12m(path: Path, piece: LineRange) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of a CC12M list."""
    for number, columns in _columns(path, piece):
        if len(columns) == 2:
            yield Entry(number, url=columns[0], caption=columns[1])
        else:
            yield _bad(number, columns)


def _columns(path: Path, piece: LineRange) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path, piece):
        try:
            yield number, line.decode("utf-8").split("\t")
        except UnicodeDecodeError:
            yield number, [repr(line)]


def _bad(number: int, columns: list[str]) -> BadEntry:
    return BadEntry(number, f"expected 2 columns, these are {len(columns)}: {columns[0][:100]!r}")
