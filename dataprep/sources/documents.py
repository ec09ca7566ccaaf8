"""Own documents (text files, JSON lines, Parquet), and the table rows made of any document.

A document that cannot be read is a reject with reason ``malformed_line``; a text shorter than the
recipe allows is ``too_short``.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from dataprep.schemas import DOCUMENTS, reject, rejects_table, table_of
from dataprep.sources.compression import read_unpacked
from dataprep.sources.folders import FolderFiles
from dataprep.sources.lines import MALFORMED_LINE, LineRange, read_lines
from dataprep.sources.members import MAX_FILE_BYTES, MemberError
from dataprep.sources.names import safe_name
from dataprep.sources.parquet_files import PARQUET_DAMAGE, read_cells
from dataprep.text import clean_document, decode_utf8

TOO_SHORT: Final = "too_short"


@dataclass(frozen=True)
class Document:
    """One document, not yet cleaned."""

    name: str
    "Name within the source; becomes part of the document id."
    text: str


@dataclass(frozen=True)
class BadDocument:
    """A document that cannot be read or is not kept."""

    name: str
    detail: str
    reason: str = MALFORMED_LINE
    "Reason in the rejects table."


Documents = Iterator[Document | BadDocument]


def document_tables(
    documents: Iterable[Document | BadDocument], source: str, file: str, min_chars: int
) -> tuple[pa.Table, pa.Table]:
    """Return (documents, rejects); each cleaned document ends in exactly one of the two.

    Args:
        documents: documents in the file's order.
        source: short name of the source.
        file: name of the file, for messages.
        min_chars: number of characters below which a text is a reject.
    """
    rows, rejects = [], []
    for document in documents:
        doc_id, where = f"{source}/{document.name}", f"{file}:{document.name}"
        if isinstance(document, BadDocument):
            rejects.append(reject(doc_id, source, document.reason, f"{where}: {document.detail}"))
            continue
        text = clean_document(document.text)
        if len(text) < min_chars:
            rejects.append(reject(doc_id, source, TOO_SHORT, f"{where}: {text!r}"))
            continue
        rows.append({"doc_id": doc_id, "source": source, "text": text})
    return table_of(rows, DOCUMENTS), rejects_table(rejects)


def read_jsonl(path: Path, line_range: LineRange, field: str) -> Documents:
    """Yield the documents of a range of JSON lines, whose texts are under the key ``field``."""
    for number, line, problem in read_lines(path, line_range):
        name = f"{number:09d}"
        try:
            if problem is not None:
                raise ValueError(problem)
            text = json.loads(line)[field]
            if not isinstance(text, str):
                raise TypeError(f"{field} is a {type(text).__name__}, expected a string")
            yield Document(name, text)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            yield BadDocument(name, f"{type(error).__name__}: {error}")


def read_text_lines(path: Path, line_range: LineRange) -> Documents:
    """Yield the documents of a range of lines, one per line."""
    for number, line, problem in read_lines(path, line_range):
        name = f"{number:09d}"
        yield Document(name, line) if problem is None else BadDocument(name, problem)


def read_text_files(folder: Path, names: Iterable[str]) -> Documents:
    """Yield the named files of a folder, plain or compressed, one document per file."""
    files = FolderFiles(folder)
    for name in names:
        try:
            yield Document(
                safe_name(name), decode_utf8(read_unpacked(files.read(name), MAX_FILE_BYTES))
            )
        except (MemberError, ValueError) as error:
            yield BadDocument(safe_name(name), str(error))


def read_parquet(path: Path, group: int, first_row: int, column: str) -> Documents:
    """Yield the documents of a row group whose first row has number ``first_row``.

    A damaged group is one bad document.
    """
    try:
        texts = read_cells(path, group, [column])[column]
    except PARQUET_DAMAGE as error:
        detail = f"row group {group}: {type(error).__name__}: {error}"
        yield BadDocument(f"{first_row:09d}", detail)
        return
    for number, text in enumerate(texts, start=first_row):
        name = f"{number:09d}"
        if isinstance(text, str):
            yield Document(name, text)
        else:
            yield BadDocument(name, f"{column} is {text!r}, expected a text"[:200])
