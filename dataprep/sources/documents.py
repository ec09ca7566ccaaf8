"""Own text as JSON lines: one object a line, its text under ``text``.

A line that is not such an object is a reject with reason ``malformed_line``; a text with fewer
letters than a sentence is ``too_short``.
"""

import json
from pathlib import Path
from typing import Final

import pyarrow as pa

from dataprep.schemas import DOCUMENTS, reject, rejects_table
from dataprep.sources.lines import MALFORMED_LINE, LineRange, read_lines
from dataprep.text import clean_document

TOO_SHORT: Final = "too_short"


def read_documents(
    path: Path, piece: LineRange, source: str, min_chars: int
) -> tuple[pa.Table, pa.Table]:
    """Return (documents, rejects) of a range of a JSON-lines file."""
    rows, rejects = [], []
    for number, line in read_lines(path, piece):
        doc_id = f"{source}/{number:09d}"
        try:
            value = json.loads(line)
            text = value["text"]
            if not isinstance(text, str):
                raise TypeError(f"text is {type(text).__name__}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            detail = f"{path.name}:{number}: {type(error).__name__}: {error}"
            rejects.append(reject(doc_id, source, MALFORMED_LINE, detail))
            continue
        text = clean_document(text)
        if len(text) < min_chars:
            rejects.append(reject(doc_id, source, TOO_SHORT, f"{path.name}:{number}: {text!r}"))
            continue
        rows.append({"doc_id": doc_id, "source": source, "text": text})
    return pa.Table.from_pylist(rows, DOCUMENTS), rejects_table(rejects)
