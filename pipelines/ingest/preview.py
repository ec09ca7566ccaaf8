"""What the files that a recipe names look like: their sizes, their form, and their first rows.

Only the beginning of a file is read, so a plan of large sources takes no longer than one of small
ones.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dataprep.sources.compression import compression_by
from orchestration.masking import masked
from orchestration.params import StageParams, external_files
from orchestration.reporting.results import human_bytes
from orchestration.storage.remote_files import head_of, version_of

_FORMS: Final = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "empty zip"),
    (b"PAR1", "Parquet"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"%PDF", "PDF"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
"First bytes of a file and its form."
_TAR_MAGIC: Final = slice(257, 262)
_HEAD_BYTES: Final = 4096
_MAX_SHOWN: Final = 72
_MAX_NAMES: Final = 3
_MAX_FILES: Final = 100_000


def preview(params: StageParams, key: str = "") -> Iterator[str]:
    """Yield a line for each file or folder that parameters name; ``key`` leads to them."""
    for file in external_files(params, key):
        path = Path(file.location)
        if file.output is not None:
            yield f"{file.key}: {masked(file.location)}, a folder that a workflow has written"
        elif file.is_remote:
            yield f"{file.key}: {masked(file.location)}, {_remote(file.location)}"
        else:
            yield f"{file.key}: {path.name}, " + (_folder(path) if path.is_dir() else _file(path))


def form_of(head: bytes) -> str:
    """Return the form of a file that begins with ``head``."""
    if not head:
        return "empty"
    if compression := compression_by(head):
        return compression
    if head[_TAR_MAGIC] == b"ustar":
        return "tar"
    for start, form in _FORMS:
        if head.startswith(start):
            return form
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "binary" if b"\0" in head else "text"


def _remote(uri: str) -> str:
    return _words(head_of(uri, _HEAD_BYTES), version_of(uri).bytes)


def _file(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return _words(head, path.stat().st_size)


def _words(head: bytes, num_bytes: int) -> str:
    form = form_of(head)
    words = f"{human_bytes(num_bytes)}, {form}"
    if form != "text":
        return words
    line = head.split(b"\n")[0].decode("utf-8", "replace").strip()
    return f"{words}, begins {line[:_MAX_SHOWN]!r}" + ("…" if len(line) > _MAX_SHOWN else "")


def _folder(path: Path) -> str:
    kinds: Counter[str] = Counter()
    examples: list[str] = []
    for number, found in enumerate(path.rglob("*")):
        if number > _MAX_FILES:
            break
        if found.is_file():
            kinds[found.suffix.lower() or "no suffix"] += 1
            if len(examples) < _MAX_NAMES:
                examples.append(found.relative_to(path).as_posix())
    if not kinds:
        return "a folder without files"
    more = "more than " if kinds.total() >= _MAX_FILES else ""
    counts = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common(_MAX_NAMES))
    return f"{more}{kinds.total()} files ({counts}), such as {', '.join(sorted(examples))}"
