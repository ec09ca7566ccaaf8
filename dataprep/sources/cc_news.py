"""CC-News: a folder of ``CC-NEWS-*.warc.gz``, news pages from Common Crawl's crawler.

Articles are HTML responses with status 200; trafilatura extracts their prose without comments and
tables. A page's language is the one that it declares (``lang`` of ``<html>``, else the
``Content-Language`` header). A page that declares none has the language whose stop words (justext's
lists) cover most of the prose. justext has no list for Chinese and Japanese, so such pages are kept
only if they declare their language.

Bytes become text by the WHATWG encoding standard: a byte order mark, else the label in the HTTP
headers, else the label in the page. A labeled page is never guessed at; its bad bytes become
U+FFFD.
"""

import io
import logging
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from warcio.exceptions import ArchiveLoadFailed
from warcio.limitreader import LimitReader
from warcio.recordloader import ArcWarcRecord, ArcWarcRecordLoader
from warcio.statusandheaders import StatusAndHeadersParser, StatusAndHeadersParserException

from dataprep.sources.documents import BadDocument, Document, Documents
from dataprep.sources.gzip_members import GzipMembers
from dataprep.sources.web_encodings import decode_page

OTHER_LANGUAGE: Final = "other_language"
PATTERN: Final = "CC-NEWS-*.warc.gz"
_MAX_PAGE_BYTES: Final = 1 << 22
"Largest part of an unzipped page that is read; the crawler itself cuts at a quarter of it."
_BLOCK_BYTES: Final = 1 << 20
_RECORD_ID: Final = re.compile(r"<urn:uuid:([0-9a-fA-F-]{36})>")
_CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_MIN_STOP_WORDS: Final = 0.1
"Smallest fraction of letters in stop words for a language to be recognized."
_HTTP: Final = StatusAndHeadersParser([], verify=False)
_STATUS_LINE: Final = re.compile(r"HTTP/\d(?:\.\d)? +(\d{3})(?: |$)", re.IGNORECASE)
_HTML_TYPES: Final = ("", "text/html", "application/xhtml+xml")
"Content types of HTML pages; a response without a type is read as one."
_MAX_WORDS: Final = 1000
_DAMAGE: Final = (
    *(OSError, EOFError, zlib.error, ArchiveLoadFailed, StatusAndHeadersParserException),
    *(ValueError, AttributeError, AssertionError),
)
"Raised by the gzip reader and warcio on damaged bytes; warcio documents only its own two."


class BadHead(ValueError):
    """The HTTP head of a response cannot be read."""


def read_warc(folder: Path, name: str, language: str) -> Documents:
    """Yield the articles of one file, streamed; damage ends the file with a bad document.

    A document's name is its record's id, else the file's name and the record's number. A page of
    another language is a bad document with reason ``other_language``.
    """
    stem = name.removesuffix(".warc.gz")
    number = 0
    try:
        with (folder / name).open("rb") as file:
            for record, body in _records(GzipMembers(file)):
                number += 1
                if body is None:
                    continue
                found = _RECORD_ID.fullmatch(record.rec_headers.get_header("WARC-Record-ID", ""))
                document = found[1] if found else f"{stem}/{number:06d}"
                yield from _response(document, record, body, language)
    except _DAMAGE as error:
        yield BadDocument(f"{stem}/{number + 1:06d}", f"{type(error).__name__}: {error}")


def _response(name: str, record: ArcWarcRecord, body: bytes, language: str) -> Documents:
    """Yield the article of a response, or a bad document, or nothing if it is no HTML page."""
    try:
        page = _page(record, body)
    except Exception as error:  # warcio documents none, and one response must not end its file
        yield BadDocument(
            name, f"the HTTP response cannot be read: {type(error).__name__}: {error}"
        )
        return
    if page is not None:
        yield read_page(name, page, _charset(record), _language(record), language)


def read_page(
    name: str, page: bytes, charset: str | None, declared: str | None, language: str
) -> Document | BadDocument:
    """Return the article of an HTML page, or a bad document with the reason.

    Args:
        name: name of the document.
        page: HTML of the page.
        charset: charset in the HTTP headers, if any.
        declared: language in the HTTP headers, if any.
        language: language to keep, as ISO 639-1.
    """
    trafilatura = _trafilatura()
    try:
        tree = trafilatura.load_html(decode_page(page, charset))
        if tree is None:
            return Document(name, "")
        declared = _primary(tree.get("lang") or tree.get("xml:lang")) or declared
        if declared not in (None, language):
            return BadDocument(name, f"the page declares language {declared}", OTHER_LANGUAGE)
        text = trafilatura.extract(tree, include_comments=False, include_tables=False) or ""
    except Exception as error:  # trafilatura documents none, and one page must not end its file
        return BadDocument(name, f"{type(error).__name__}: {error}")
    if declared is None and text and (found := language_of(text)) != language:
        detail = f"stop words of language {found}" if found else "no known stop words"
        return BadDocument(name, detail, OTHER_LANGUAGE)
    return Document(name, text)


def language_of(text: str) -> str | None:
    """Return the language (ISO 639-1) whose stop words cover most of a text, or None."""
    words = re.findall(r"\w+", text.lower())[:_MAX_WORDS]
    num_letters = max(sum(map(len, words)), 1)
    coverage = {
        code: sum(len(word) for word in words if word in stop_words) / num_letters
        for code, stop_words in _stop_words().items()
    }
    # Of two lists with equal coverage, the shorter one is the stronger evidence.
    best = max(coverage, key=lambda code: (coverage[code], -len(_stop_words()[code])))
    return best if coverage[best] >= _MIN_STOP_WORDS else None


def _records(file: GzipMembers) -> Iterator[tuple[ArcWarcRecord, bytes | None]]:
    """Yield the records of a WARC, each with the first bytes of its response or None.

    warcio's own iterator takes damage for the end of the file, so this loop reads the records
    itself. A record is yielded once the next one has begun, or once its gzip member has ended with
    the right checksum. Other bytes behind a record in its member may belong to a damaged record
    that was inflated to more than its length, so that record is not yielded.
    """
    loader = ArcWarcRecordLoader()
    line = _next_line(file)
    if not line:
        raise EOFError("no records")
    while line:
        record = loader.parse_record_stream(file, line, "warc", no_record_parse=True)
        stream = record.raw_stream
        if not isinstance(stream, LimitReader):
            raise ValueError("a record without Content-Length")
        response = record.rec_type == "response" and record.length > 0
        body = _first_bytes(stream, _MAX_PAGE_BYTES) if response else None
        while stream.limit > 0:
            if not stream.read(_BLOCK_BYTES):
                raise EOFError(f"the last {stream.limit} bytes of a record are missing")
        end, line = file.position, b""
        try:
            line = _next_line(file)
            if line and not line.startswith(b"WARC/"):
                raise ValueError(f"expected a WARC record, found {line[:20]!r}")
        except _DAMAGE:
            if file.member_ended_within(end, file.position - len(line)):
                yield record, body
            raise
        yield record, body


def _next_line(file: GzipMembers) -> bytes:
    """Return the next line that is not blank, or no bytes at the end of the file."""
    while line := file.readline(_BLOCK_BYTES):
        if line.strip():
            return line
    return b""


def _first_bytes(stream: LimitReader, num_bytes: int) -> bytes:
    blocks = []
    while num_bytes > 0 and (block := stream.read(min(num_bytes, _BLOCK_BYTES))):
        blocks.append(block)
        num_bytes -= len(block)
    return b"".join(blocks)


def _page(record: ArcWarcRecord, body: bytes) -> bytes | None:
    """Return the HTML of a successful response, or None for any other response.

    Empty lines before the status line are skipped, as RFC 9112, section 2.2 advises, and so are
    interim responses (status 1xx) before the final one.

    Raises:
        BadHead: the body does not begin with an HTTP status line.
    """
    record.raw_stream = io.BytesIO(body.lstrip(b"\r\n"))
    code = "1xx"
    while code.startswith("1"):
        first = record.raw_stream.readline(_BLOCK_BYTES)
        status = _STATUS_LINE.match(first.decode("latin-1").rstrip())
        if status is None:
            raise BadHead(f"expected an HTTP status line, found {first[:40]!r}")
        code = status[1]
        headers = record.http_headers = _HTTP.parse(record.raw_stream, first.decode("latin-1"))
    if code != "200":
        return None
    kind = (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind not in _HTML_TYPES:
        return None
    return bytes(record.content_stream().read(_MAX_PAGE_BYTES))


def _charset(record: ArcWarcRecord) -> str | None:
    found = _CHARSET.search(record.http_headers.get_header("Content-Type") or "")
    return found[1] if found else None


def _language(record: ArcWarcRecord) -> str | None:
    return _primary(record.http_headers.get_header("Content-Language"))


def _primary(tag: str | None) -> str | None:
    """Return the language of a tag such as ``en-GB``, or of a list with only one language."""
    parts = re.split(r"[,;]", (tag or "").lower())
    languages = {re.split("[-_]", part.strip())[0] for part in parts if part.strip()}
    return languages.pop() if len(languages) == 1 else None


@lru_cache
def _trafilatura() -> Any:
    import trafilatura  # a slow import that no other source needs

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # else a line for each odd page
    return trafilatura


@lru_cache
def _stop_words() -> dict[str, frozenset[str]]:
    import justext
    from trafilatura.settings import JUSTEXT_LANGUAGES

    return {code: justext.get_stoplist(name) for code, name in JUSTEXT_LANGUAGES.items()}
