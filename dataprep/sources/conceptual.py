"""Conceptual Captions lists: one caption and one URL per line, separated by a tab, no header.

CC3M (``Train_GCC-training.tsv``) is ``caption TAB url``, with captions in lower case and tokenized
at punctuation; CC12M (``cc12m.tsv``) is ``url TAB caption``.
"""

from collections.abc import Iterator
from pathlib import Path

from dataprep.sources.entries import BadEntry, Entry
from dataprep.sources.lines import LineRange, read_lines
from dataprep.text import detokenize


def read_cc3m(path: Path, line_range: LineRange) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of a CC3M list."""
    for number, columns in _columns(path, line_range):
        if len(columns) == 2:
            yield Entry(number, url=columns[1], caption=detokenize(columns[0]))
        else:
            yield _bad(number, columns)


def read_cc12m(path: Path, line_range: LineRange) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of a CC12M list."""
    for number, columns in _columns(path, line_range):
        if len(columns) == 2:
            yield Entry(number, url=columns[0], caption=columns[1])
        else:
            yield _bad(number, columns)


def _columns(path: Path, line_range: LineRange) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path, line_range):
        try:
            yield number, line.decode("utf-8").split("\t")
        except UnicodeDecodeError:
            yield number, [repr(line)]


def _bad(number: int, columns: list[str]) -> BadEntry:
    return BadEntry(number, f"expected 2 columns, found {len(columns)}: {columns[0][:100]!r}")
