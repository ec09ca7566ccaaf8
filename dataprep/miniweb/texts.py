"""Text corpora: JSON lines, OpenWebText, books.

documents.jsonl     one {"text": …} per line; some lines are truncated
openwebtext/        urlsf_subset00-1_data.xz, …: a compressed tar of one-document files, with
                    a lock file beside it; the last of several archives is truncated
books/              one book per file, wrapped at 72 columns; some with a byte order mark or DOS
                    line ends, some not UTF-8 or nearly empty
"""

import hashlib
import io
import json
import lzma
import tarfile
import textwrap
from pathlib import Path
from typing import Final

from dataprep.miniweb.archives import add
from dataprep.miniweb.drawn_images import numbered_rng
from dataprep.miniweb.grammar import DAYS, NAMES, PLACES, document, random_scene
from dataprep.miniweb.truth import TextRow

DOCUMENTS: Final = "documents.jsonl"
OPENWEBTEXT: Final = "openwebtext"
BOOKS: Final = "books"
_TEXTS_OF_AN_ARCHIVE: Final = 50
_CHAPTERS: Final = 3
_PARAGRAPHS_OF_A_CHAPTER: Final = 8


def prose(num_paragraphs: int, *key: int) -> list[str]:
    """Return paragraphs, each of which describes a scene."""
    rng = numbered_rng(*key)
    return [document(random_scene(rng), rng) for _ in range(num_paragraphs)]


def write_documents(folder: Path, number: int, seed: int) -> list[TextRow]:
    """Write ``documents.jsonl``."""
    rows = []
    with (folder / DOCUMENTS).open("w") as file:
        for i in range(number):
            (text,) = prose(1, seed, 4, i)
            line, is_whole = json.dumps({"text": text}), i % 211 != 100
            file.write((line if is_whole else line[:-9]) + "\n")
            outcome = "ok" if is_whole else "malformed_line"
            rows.append(_row("stories", f"{i + 1:09d}", outcome, [text]))
    return rows


def write_openwebtext(folder: Path, number: int, seed: int) -> list[TextRow]:
    """Write ``openwebtext/`` with ``number`` documents."""
    (folder / OPENWEBTEXT).mkdir()
    rows = []
    for first in range(0, number, _TEXTS_OF_AN_ARCHIVE):
        stem = f"urlsf_subset{first // _TEXTS_OF_AN_ARCHIVE:02d}-1_data"
        numbers = range(first, min(first + _TEXTS_OF_AN_ARCHIVE, number))
        is_last = first > 0 and numbers.stop == number
        tar, here = _web_texts(stem, numbers, seed, is_last)
        rows += here
        (folder / OPENWEBTEXT / f"{stem}.xz").write_bytes(lzma.compress(tar, preset=1))
        (folder / OPENWEBTEXT / f"{stem}.xz.lock").touch()
    return rows


def _web_texts(stem: str, numbers: range, seed: int, cut: bool) -> tuple[bytes, list[TextRow]]:
    """Return a tar of documents; ``cut`` truncates it after its last header."""
    buffer, rows, end = io.BytesIO(), list[TextRow](), 0
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i in numbers:
            is_long = i % 17 != 9
            paragraphs = prose(1 + i % 4, seed, 12, i) if is_long else ["Sign in"]
            data = ("\n\n\n\n".join(paragraphs) + "\n").encode()
            name = f"{i:07d}-{hashlib.md5(data).hexdigest()}.txt"
            end = archive.offset + tarfile.BLOCKSIZE
            add(archive, name, data)
            outcome = "ok" if is_long else "too_short"
            rows.append(_row("openwebtext", f"{stem}/{name}", outcome, paragraphs))
    if not cut:
        return buffer.getvalue(), rows
    # An unreadable document has no name, so a reader names it by its number.
    rows[-1] = _row("openwebtext", f"{stem}/{len(numbers)}", "malformed_line", [])
    return buffer.getvalue()[:end], rows


def write_books(folder: Path, number: int, seed: int) -> list[TextRow]:
    """Write ``books/`` with ``number`` books."""
    (folder / BOOKS).mkdir()
    rows = []
    for i in range(number):
        outcome = {4: "too_short", 8: "malformed_line"}.get(i % 11, "ok")
        paragraphs = ["The end."] if outcome == "too_short" else _book(seed, i)
        wrapped = [textwrap.fill(p, 72, break_on_hyphens=False) for p in paragraphs]
        data = ("\n\n".join(wrapped) + "\n").encode()
        if outcome == "malformed_line":
            data += "François\n".encode("latin-1")
        if i % 7 == 3:
            data = data.replace(b"\n", b"\r\n")
        if i % 7 == 5:
            data = b"\xef\xbb\xbf" + data
        name = f"book-{i:05d}.txt"
        (folder / BOOKS / name).write_bytes(data)
        rows.append(_row("books", name, outcome, paragraphs))
    return rows


def _book(seed: int, number: int) -> list[str]:
    """Return a book's paragraphs: title, rights, chapters."""
    rng = numbered_rng(seed, 13, number)
    author = f"{rng.choice(NAMES)} {rng.choice(DAYS)}"
    paragraphs = [f"Pictures of the {rng.choice(PLACES)}", f"by {author}", f"Copyright {author}."]
    for chapter in range(1, 1 + _CHAPTERS):
        paragraphs.append(f"Chapter {chapter}")
        paragraphs += prose(_PARAGRAPHS_OF_A_CHAPTER, seed, 13, number, chapter)
    return paragraphs


def _row(source: str, name: str, outcome: str, paragraphs: list[str]) -> TextRow:
    text = "\n".join(paragraphs) if outcome == "ok" else None
    return TextRow(source, f"{source}/{name}", outcome, text)
