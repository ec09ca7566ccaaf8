"""Wikipedia: ``…-pages-articles-multistream.xml.bz2`` and its ``…-multistream-index.txt.bz2``.

The dump is many bzip2 streams of a hundred pages; the index has a line ``offset:page:title`` for
each page, so a slice of streams is read without what stands before it. Articles are pages of
namespace 0 that redirect nowhere; markup is stripped by mwparserfromhell.
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
    """A file that is no multistream index, or does not belong to its dump."""


@dataclass(frozen=True)
class StreamRange:
    """Whole bzip2 streams of a dump."""

    offset: int
    num_bytes: int


def stream_ranges(dump: Path, index: Path, num_streams: int) -> list[StreamRange]:
    """Cut a dump into ranges of ``num_streams`` streams.

    Raises:
        DumpError: the index is none, or points behind the dump's end.
    """
    starts: list[int] = []
    try:
        with bz2.open(index) as file:
            for line in file:
                offset = int(line.split(b":", 1)[0])
                if not starts or offset > starts[-1]:
                    starts.append(offset)
    except (ValueError, OSError, EOFError) as error:
        raise DumpError(f"{index}: no multistream index ({error})") from None
    size = dump.stat().st_size
    if not starts or starts[-1] >= size:
        raise DumpError(f"{index}: does not belong to {dump} of {size} bytes")
    bounds = [*starts[::num_streams], size]
    return [StreamRange(start, end - start) for start, end in itertools.pairwise(bounds)]


def read_streams(dump: Path, piece: StreamRange) -> Documents:
    """Yield the articles of a range; a damaged range ends with a bad document."""
    name = f"at {piece.offset}"
    try:
        with dump.open("rb") as file:
            file.seek(piece.offset)
            pages = bz2.decompress(file.read(piece.num_bytes))
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
    """Return an article's prose: no templates, tables, references, files, categories."""
    code = mwparserfromhell.parse(markup)
    for node in _dropped(code):
        try:
            code.remove(node)
        except ValueError:  # it lay within one that is gone already
            continue
    return str(code.strip_code(normalize=True, collapse=True))


def _dropped(code: mwparserfromhell.wikicode.Wikicode) -> Iterator[mwparserfromhell.nodes.Node]:
    yield from code.filter_tags(matches=lambda node: str(node.tag).lower() in _NOT_TEXT)
    yield from code.filter_wikilinks(
        matches=lambda node: str(node.title).strip().lower().startswith(_NOT_ARTICLES)
    )
