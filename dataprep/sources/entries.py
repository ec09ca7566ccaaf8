"""Entries of a list of URLs and captions, and the index rows made of them.

An own list may name local files instead of URLs: by a path relative to the folder of the list, by
an absolute path, or as ``file:``. The index holds them as ``file:`` with the path as it was, so
that it does not depend on where the list lies. Backslashes in a relative path may be those of
Windows; a path with a drive or a server of Windows is an error. A list that somebody else
published, or that was read from a URI, may name no local file: it must not choose which files of
this machine are read.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pyarrow as pa

from dataprep.schemas import INDEX, reject, rejects_table, table_of
from dataprep.sources.lines import MALFORMED_LINE
from dataprep.sources.names import safe_name
from dataprep.text import arrow_safe, clean_caption

EMPTY_CAPTION: Final = "empty_caption"
BAD_URL: Final = "bad_url"
_FILE: Final = "file:"
_WINDOWS: Final = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"Beginning of an absolute path of Windows: a drive or a server."
_PLAIN_URL: Final = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?:[/?#]|\Z)")
"Most URLs; skipping their parsing saves a third of the time of reading a list."


@dataclass(frozen=True)
class Entry:
    """One entry, not yet cleaned."""

    number: int
    "Number of the line or row within its file, from 1."
    url: str
    captions: tuple[str, ...]
    sha256: str | None = None
    "SHA-256 of the image in hexadecimal, if the list gives one."
    held_out: bool | None = None
    "Whether the list keeps the entry out of training; None if it does not say."
    group: str | None = None
    "Group whose entries are trained on or held out together, if the list gives one."


@dataclass(frozen=True)
class BadEntry:
    """An entry that does not have the format of its list."""

    number: int
    detail: str


def index_tables(
    entries: Iterable[Entry | BadEntry],
    source: str,
    file: str,
    *,
    part: str = "",
    local_images: bool = False,
) -> tuple[pa.Table, pa.Table]:
    """Return (index rows, rejects); each entry ends in exactly one of the two.

    Args:
        entries: entries in the file's order.
        source: short name of the source.
        file: name of the file, for messages.
        part: name of the file within a list that is a folder of files; becomes part of the ids.
        local_images: whether an entry may name a local file instead of a URL.
    """
    rows, rejects = [], []
    prefix = f"{source}/{safe_name(part)}/" if part else f"{source}/"
    for entry in entries:
        sample_id, where = f"{prefix}{entry.number:09d}", f"{file}:{entry.number}"
        if isinstance(entry, BadEntry):
            detail = f"{where}: {entry.detail}"
            rejects.append(reject(sample_id, source, MALFORMED_LINE, detail))
            continue
        captions = [c for caption in entry.captions if (c := clean_caption(caption))]
        url = _address(entry.url.strip(), local_images)
        problem = EMPTY_CAPTION if not captions else BAD_URL if url is None else None
        if problem:
            detail = f"{where}: {entry.url.strip()}"
            rejects.append(reject(sample_id, source, problem, detail))
            continue
        rows.append(
            {
                "sample_id": sample_id,
                "source": source,
                "url": url,
                "captions": captions,
                "sha256": entry.sha256,
                "held_out": entry.held_out,
                "group": entry.group,
            }
        )
    return table_of(rows, INDEX), rejects_table(rejects)


def local_path(url: str, folder: Path) -> Path | None:
    """Return the path of a ``file:`` URL of the index, or None for any other URL.

    If there is no file whose name has the backslashes of the path, they stand for slashes.

    Args:
        url: URL of the index.
        folder: folder at which relative paths begin.
    """
    if not url.startswith(_FILE):
        return None
    name = os.fsdecode(unquote_to_bytes(url.removeprefix(_FILE)))
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not path.exists() else path


def _address(url: str, local_images: bool) -> str | None:
    """Return what the index holds for a URL or a path; None if it is neither."""
    if _PLAIN_URL.match(url):
        return url
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https"):
            return url if parts.hostname else None
    except ValueError:
        return None
    if not local_images or _WINDOWS.match(url):
        return None
    if parts.scheme == "file":
        path = parts.path if parts.netloc in ("", "localhost") else ""
    elif "://" in url or url.startswith("//"):
        path = ""
    else:
        path = quote(arrow_safe(url))
    is_usable = path and not path.endswith("/") and "%00" not in path
    return f"{_FILE}{path}" if is_usable else None
