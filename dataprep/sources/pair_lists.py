"""Conceptual Captions lists: a caption and a URL a line, parted by a tab, without a header.

CC3M (``Train_GCC-training.tsv``) is ``caption TAB url``, its captions lower-cased and split at
punctuation; CC12M (``cc12m.tsv``) is ``url TAB caption``, the reverse.
A line that does not hold exactly that is a reject with reason ``malformed_line``.
"""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pyarrow as pa

from dataprep.schemas import INDEX, reject, rejects_table
from dataprep.sources.lines import MALFORMED_LINE, LineRange, read_lines
from dataprep.text import clean_caption, detokenise

EMPTY_CAPTION: Final = "empty_caption"
BAD_URL: Final = "bad_url"


def read_cc3m(path: Path, piece: LineRange, source: str) -> tuple[pa.Table, pa.Table]:
    """Return (index rows, rejects) of a range of a CC3M list."""
    return _read(path, piece, source, url_column=1, split_punctuation=True)


def read_cc12m(path: Path, piece: LineRange, source: str) -> tuple[pa.Table, pa.Table]:
    """Return (index rows, rejects) of a range of a CC12M list."""
    return _read(path, piece, source, url_column=0, split_punctuation=False)


def _read(
    path: Path, piece: LineRange, source: str, url_column: int, split_punctuation: bool
) -> tuple[pa.Table, pa.Table]:
    rows, rejects = [], []
    for number, line in read_lines(path, piece):
        sample_id = f"{source}/{number:09d}"
        try:
            columns = line.decode("utf-8").split("\t")
        except UnicodeDecodeError:
            columns = []
        if len(columns) != 2:
            detail = f"{path.name}:{number}: expected 2 columns: {line[:100]!r}"
            rejects.append(reject(sample_id, source, MALFORMED_LINE, detail))
            continue
        url, text = columns[url_column].strip(), columns[1 - url_column]
        caption = clean_caption(detokenise(text) if split_punctuation else text)
        problem = EMPTY_CAPTION if not caption else _url_problem(url)
        if problem:
            rejects.append(reject(sample_id, source, problem, f"{path.name}:{number}: {url}"))
            continue
        rows.append({"sample_id": sample_id, "source": source, "url": url, "captions": [caption]})
    return pa.Table.from_pylist(rows, INDEX), rejects_table(rejects)


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    return None if usable else BAD_URL
