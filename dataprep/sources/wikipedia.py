"""Wikipedia: ``…-pages-articles-multistream.xml.bz2`` and its ``…-multistream-index.txt.bz2``.

The dump is a sequence of bzip2 streams of pages; the index has a line ``offset:page:title`` for
each page, so that any range of streams can be read alone. Articles are pages of namespace 0 that
are not redirects.
"""

import bz2
import html
import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataprep.sources.documents import MAX_DOCUMENT_BYTES, BadDocument, Document, Documents
from dataprep.sources.language_variants import LANGUAGES, resolve_variants
from dataprep.sources.wikitext import TooCostly, namespace_of, plain_text

UNCLOSED_MARKUP: Final = "unclosed_markup"
_FILE_NAMES: Final = frozenset(
    {
        *("file", "image", "category"),
        *("bild", "imagen", "immagine", "imagem", "afbeelding", "grafika", "изображение"),
        *("画像", "文件", "图像", "圖像", "檔案", "档案"),
    }
)
"English names, and aliases of MediaWiki's language files that no siteinfo lists."
_NAMESPACE: Final = re.compile(rb'<namespace key="(?:6|14)"[^>]*>([^<]+)</namespace>')
_LANGUAGE: Final = re.compile(rb'<mediawiki\b[^>]*\bxml:lang="([a-z]+)')
_SITEINFO_END: Final = b"</siteinfo>"
_HEAD_BYTES: Final = 1 << 16
_MAX_HEAD_BYTES: Final = 1 << 20
_END: Final = b"</mediawiki>"


class DumpError(ValueError):
    """A file is not a multistream index, or does not belong to its dump."""


@dataclass(frozen=True)
class StreamRange:
    """Whole bzip2 streams of a dump."""

    offset: int
    num_bytes: int


def stream_ranges(
    dump: Path, index: Path, num_streams: int, num_bytes: int | None = None
) -> list[StreamRange]:
    """Split a dump into ranges of streams.

    Args:
        dump: the dump.
        index: its multistream index.
        num_streams: largest number of streams of a range.
        num_bytes: largest compressed size of a range; a larger stream is a range of its own.

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
    bounds, count = [starts[0]], 0
    for start, end in itertools.pairwise([*starts, size]):
        if count and (count == num_streams or (num_bytes and end - bounds[-1] > num_bytes)):
            bounds.append(start)
            count = 0
        count += 1
    bounds.append(size)
    return [StreamRange(start, end - start) for start, end in itertools.pairwise(bounds)]


def read_streams(dump: Path, stream_range: StreamRange) -> Documents:
    """Yield the articles of a range, one stream in memory; damage ends it with a bad document."""
    head = _head(dump)
    dropped = dropped_namespaces(head)
    language = _LANGUAGE.search(head)
    has_variants = language is not None and language[1].decode() in LANGUAGES
    try:
        for pages in _streams(dump, stream_range):
            root = ElementTree.fromstring(
                b"<pages>" + pages.removesuffix(b"\n").removesuffix(_END) + b"</pages>"
            )
            for page in root.iter("page"):
                if page.findtext("ns") == "0" and page.find("redirect") is None:
                    markup = page.findtext("revision/text") or ""
                    markup = resolve_variants(markup) if has_variants else markup
                    yield _article(f"{page.findtext('id')}", markup, dropped)
    except (OSError, ValueError, EOFError, ElementTree.ParseError) as error:
        yield BadDocument(f"at {stream_range.offset}", f"{type(error).__name__}: {error}")


def _streams(dump: Path, stream_range: StreamRange) -> Iterator[bytes]:
    """Yield the unpacked streams of a range.

    Raises:
        OSError, EOFError, ValueError: a stream is damaged, or larger than any document may be.
    """
    missing = stream_range.num_bytes
    with dump.open("rb") as file:
        file.seek(stream_range.offset)
        rest = b""
        while missing or rest:
            stream, blocks, size = bz2.BZ2Decompressor(), [], 0
            while not stream.eof:
                if stream.needs_input and not rest:
                    rest = file.read(min(missing, _HEAD_BYTES))
                    missing -= len(rest)
                    if not rest:
                        raise EOFError("the range ends within a stream")
                blocks.append(stream.decompress(rest, _HEAD_BYTES))
                rest = b""
                size += len(blocks[-1])
                if size > MAX_DOCUMENT_BYTES:
                    raise ValueError(f"a stream of more than {MAX_DOCUMENT_BYTES} bytes")
            rest = stream.unused_data
            yield b"".join(blocks)


def _article(name: str, markup: str, dropped: frozenset[str]) -> Document | BadDocument:
    try:
        return Document(name, plain_text(markup, dropped))
    except TooCostly as error:
        return BadDocument(name, str(error), UNCLOSED_MARKUP)


def dropped_namespaces(head: bytes) -> frozenset[str]:
    """Return the names of the namespaces whose links are no prose, in lower case.

    The names of a wiki's own language are in the ``siteinfo`` at the head of the dump; English
    names hold on every wiki.
    """
    names = {html.unescape(name.decode()) for name in _NAMESPACE.findall(head)}
    return _FILE_NAMES | {namespace_of(f"{name}:") for name in names}


def _head(dump: Path) -> bytes:
    """Return the head of a dump, which names its language and its namespaces."""
    head = b""
    try:
        with bz2.open(dump) as file:
            while _SITEINFO_END not in head and (block := file.read(_HEAD_BYTES)):
                head += block
                if len(head) > _MAX_HEAD_BYTES:
                    break
    except (OSError, EOFError):  # damage at the head is no reason to lose the pages
        pass
    return head
