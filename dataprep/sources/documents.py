"""Own documents (text files, JSON lines, Parquet), and the table rows made of any document.

A document that cannot be read is a reject with reason ``malformed_line``; a text shorter than the
recipe allows is ``too_short``; one of more than ``MAX_DOCUMENT_BYTES`` is ``too_long``.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from dataprep.schemas import DOCUMENTS, reject, rejects_table, table_of
from dataprep.sources.compression import TooLarge, read_unpacked
from dataprep.sources.folders import FolderFiles
from dataprep.sources.lines import (
    MALFORMED_LINE,
    MAX_LINE_BYTES,
    TOO_LONG,
    LineRange,
    read_lines,
)
from dataprep.sources.members import MemberError
from dataprep.sources.names import safe_name
from dataprep.sources.parquet_files import PARQUET_DAMAGE, Oversized, read_column
from dataprep.text import clean_document, decode_utf8

TOO_SHORT: Final = "too_short"
MAX_DOCUMENT_BYTES: Final = MAX_LINE_BYTES
"Size in UTF-8 of the longest document."
_CHUNK_CHARS: Final = 1 << 24


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


def in_chunks(
    documents: Iterable[Document | BadDocument], num_chars: int = _CHUNK_CHARS
) -> Iterator[list[Document | BadDocument]]:
    """Yield documents in lists that fit into memory; at least one list, which may be empty.

    Args:
        documents: any number of documents.
        num_chars: largest size of all texts of a list; a longer text has a list of its own.
    """
    chunk: list[Document | BadDocument] = []
    size = 0
    for document in documents:
        mine = len(document.text if isinstance(document, Document) else document.detail)
        if chunk and size + mine > num_chars:
            yield chunk
            chunk, size = [], 0
        chunk.append(document)
        size += mine
    yield chunk


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


def read_jsonl(path: Path, line_range: LineRange | None, field: str) -> Documents:
    """Yield the documents of a range of JSON lines, whose texts are under the key ``field``.

    No range stands for all lines, in this reader and the next.
    """
    for number, line, problem, reason in read_lines(path, line_range):
        name = f"{number:09d}"
        if problem is not None:
            yield BadDocument(name, f"ValueError: {problem}", reason)
            continue
        try:
            text = json.loads(line)[field]
            if not isinstance(text, str):
                raise TypeError(f"{field} is a {type(text).__name__}, expected a string")
            yield Document(name, text)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            yield BadDocument(name, f"{type(error).__name__}: {error}")


def read_text_lines(path: Path, line_range: LineRange | None) -> Documents:
    """Yield the documents of a range of lines, one per line."""
    for number, line, problem, reason in read_lines(path, line_range):
        name = f"{number:09d}"
        yield Document(name, line) if problem is None else BadDocument(name, problem, reason)


def read_text_files(folder: Path, names: Iterable[str]) -> Documents:
    """Yield the named files of a folder, plain or compressed, one document per file."""
    files = FolderFiles(folder)
    for name in names:
        shown = safe_name(name)
        try:
            size = (folder / name).stat().st_size if (folder / name).is_file() else 0
            if size > MAX_DOCUMENT_BYTES:
                raise TooLarge(f"{size} bytes, the limit is {MAX_DOCUMENT_BYTES}")
            data = read_unpacked(files.read(name), MAX_DOCUMENT_BYTES)
            yield Document(shown, decode_utf8(data))
        except TooLarge as error:
            yield BadDocument(shown, str(error), TOO_LONG)
        except (MemberError, ValueError) as error:
            yield BadDocument(shown, str(error))


def read_parquet(path: Path, group: int, first_row: int, column: str) -> Documents:
    """Yield the documents of a row group whose first row has number ``first_row``.

    Damage ends the group with a bad document.
    """
    number = first_row
    try:
        for text in read_column(path, group, column, MAX_DOCUMENT_BYTES):
            name = f"{number:09d}"
            if isinstance(text, str):
                yield Document(name, text)
            elif isinstance(text, Oversized):
                detail = f"{text.num_bytes} bytes, the limit is {MAX_DOCUMENT_BYTES}"
                yield BadDocument(name, detail, TOO_LONG)
            else:
                yield BadDocument(name, f"{column} is {text!r}, expected a text"[:200])
            number += 1
    except PARQUET_DAMAGE as error:
        detail = f"row group {group}: {type(error).__name__}: {error}"
        yield BadDocument(f"{number:09d}", detail)
