"""Language-neutral cleaning of captions and documents."""

import codecs
import html
import re
import unicodedata
from typing import Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPACES: Final = re.compile(r"\s+")
_BLANK_LINES: Final = re.compile(r"\n\s*\n\s*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b\ufeff\ufffe\uffff]")
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SAMPLE_BYTES: Final = 4096
_SPACE_BEFORE: Final = re.compile(r"\s+([.,;:!?%)\]}]|n't|'(?:s|m|re|ve|ll|d)\b)")
_SPACE_AFTER: Final = re.compile(r"([(\[{$#])\s+")


def arrow_safe(text: str) -> str:
    """Return a text that can be encoded as UTF-8, as Arrow requires.

    Surrogates come from JSON and XML escapes and from file names that are not UTF-8. Two halves of
    a pair are joined; a lone half becomes U+FFFD.
    """
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decode_utf8(data: bytes) -> str:
    """Return the text of a file without its byte order mark.

    Raises:
        ValueError: the bytes are not UTF-8, or are UTF-16 or UTF-32; the message says which.
    """
    if other := other_encoding(data):
        raise ValueError(f"{other}, expected UTF-8")
    return data.decode("utf-8-sig")


def other_encoding(head: bytes) -> str | None:
    """Return the name of an encoding other than UTF-8 by which a file begins, or None.

    UTF-16 and UTF-32 without a byte order mark are recognized by their zero bytes.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    sample = head[:_SAMPLE_BYTES]
    return "UTF-16 or binary" if sample.count(0) > len(sample) // 5 else None


def clean_caption(text: str) -> str:
    """Return a caption on one line: entities resolved, NFC, single spaces."""
    text = html.unescape(text)
    if text.isascii() and text.isprintable():  # fast path of most captions
        return " ".join(text.split())
    text = unicodedata.normalize("NFC", arrow_safe(text))
    return _SPACES.sub(" ", _CONTROL.sub(" ", text)).strip()


def clean_document(text: str) -> str:
    """Return a document in NFC: one paragraph per line, single spaces."""
    text = unicodedata.normalize("NFC", arrow_safe(text).replace("\r\n", "\n"))
    text = _CONTROL.sub(" ", text)
    paragraphs = (_SPACES.sub(" ", part).strip() for part in _BLANK_LINES.split(text))
    return "\n".join(part for part in paragraphs if part)


def detokenize(text: str) -> str:
    """Undo the tokenization of CC3M's captions, which sets punctuation apart."""
    return _SPACE_AFTER.sub(r"\1", _SPACE_BEFORE.sub(r"\1", text))
