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
        if isinstance(columns, BadEntry):
            yield columns
        else:
            yield Entry(number, url=columns[1], captions=(detokenize(columns[0]),))


def read_cc12m(path: Path, line_range: LineRange) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a range of a CC12M list."""
    for number, columns in _columns(path, line_range):
        if isinstance(columns, BadEntry):
            yield columns
        else:
            yield Entry(number, url=columns[0], captions=(columns[1],))


def _columns(path: Path, line_range: LineRange) -> Iterator[tuple[int, list[str] | BadEntry]]:
    for number, text, problem, _ in read_lines(path, line_range):
        columns = text.split("\t")
        if problem is None and len(columns) != 2:
            problem = f"expected 2 columns, found {len(columns)}: {columns[0][:100]!r}"
        yield number, columns if problem is None else BadEntry(number, problem)
