"""Wikipedia: ``…-pages-articles-multistream.xml.bz2`` and its ``…-multistream-index.txt.bz2``.

The dump is a sequence of bzip2 streams of pages; the index has a line ``offset:page:title`` for
each page, so that any range of streams can be read alone. Articles are pages of namespace 0 that
are not redirects; mwparserfromhell strips the markup.
"""

import bz2
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mwparserfromhell

from dataprep.sources.documents import BadDocument, Document, Documents

_NOT_TEXT: Final = frozenset(
    {"ref", "math", "gallery", "timeline", "table", "score", "syntaxhighlight"}
)
_NOT_ARTICLES: Final = ("file:", "image:", "category:")
_END: Final = b"</mediawiki>"


class DumpError(ValueError):
    """A file is not a multistream index, or does not belong to its dump."""


@dataclass(frozen=True)
class StreamRange:
    """Whole bzip2 streams of a dump."""

    offset: int
    num_bytes: int


def stream_ranges(dump: Path, index: Path, num_streams: int) -> list[StreamRange]:
    """Split a dump into ranges of ``num_streams`` streams.

    Raises:
        DumpError: the index is not a multistream index, or points past the dump's end.
    """
    starts: list[int] = []
    try:
        with bz2.open(index) as file:
            for line in file:
                offset = int(line.split(b":", 1)[0])
                if not starts or offset > starts[-1]:
                    starts.append(offset)
    except (ValueError, OSError, EOFError) as error:
        raise DumpError(f"{index}: not a multistream index ({error})") from None
    size = dump.stat().st_size
    if not starts or starts[-1] >= size:
        raise DumpError(f"{index}: does not belong to {dump}, which has {size} bytes")
    bounds = [*starts[::num_streams], size]
    return [StreamRange(start, end - start) for start, end in itertools.pairwise(bounds)]


def read_streams(dump: Path, stream_range: StreamRange) -> Documents:
    """Yield the articles of a range; a damaged range ends with a bad document."""
    name = f"at {stream_range.offset}"
    try:
        with dump.open("rb") as file:
            file.seek(stream_range.offset)
            pages = bz2.decompress(file.read(stream_range.num_bytes))
        root = ElementTree.fromstring(
            b"<pages>" + pages.removesuffix(b"\n").removesuffix(_END) + b"</pages>"
        )
    except (OSError, ValueError, EOFError, ElementTree.ParseError) as error:
        yield BadDocument(name, f"{type(error).__name__}: {error}")
        return
    for page in root.iter("page"):
        if page.findtext("ns") == "0" and page.find("redirect") is None:
            yield Document(
                f"{page.findtext('id')}", plain_text(page.findtext("revision/text") or "")
            )


def plain_text(markup: str) -> str:
    """Return an article's prose, without templates, tables, references, files and categories."""
    code = mwparserfromhell.parse(markup)
    for node in _dropped(code):
        try:
            code.remove(node)
        except ValueError:  # part of a node that was removed before
            continue
    return str(code.strip_code(normalize=True, collapse=True))


def _dropped(code: mwparserfromhell.wikicode.Wikicode) -> Iterator[mwparserfromhell.nodes.Node]:
    yield from code.filter_tags(matches=lambda node: str(node.tag).lower() in _NOT_TEXT)
    yield from code.filter_wikilinks(
        matches=lambda node: str(node.title).strip().lower().startswith(_NOT_ARTICLES)
    )
