"""Language-neutral cleaning of captions and documents."""

import html
import re
import unicodedata
from typing import Final

_SPACES: Final = re.compile(r"\s+")
_BLANK_LINES: Final = re.compile(r"\n\s*\n\s*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b\ufeff\ufffe\uffff]")
_SPACE_BEFORE: Final = re.compile(r"\s+([.,;:!?%)\]}]|n't|'(?:s|m|re|ve|ll|d)\b)")
_SPACE_AFTER: Final = re.compile(r"([(\[{$#])\s+")


def clean_caption(text: str) -> str:
    """Return a caption on one line: entities resolved, NFC, single spaces."""
    text = html.unescape(text)
    if text.isascii() and text.isprintable():  # fast path of most captions
        return " ".join(text.split())
    text = unicodedata.normalize("NFC", text)
    return _SPACES.sub(" ", _CONTROL.sub(" ", text)).strip()


def clean_document(text: str) -> str:
    """Return a document in NFC: one paragraph per line, single spaces."""
    text = _CONTROL.sub(" ", unicodedata.normalize("NFC", text.replace("\r\n", "\n")))
    paragraphs = (_SPACES.sub(" ", part).strip() for part in _BLANK_LINES.split(text))
    return "\n".join(part for part in paragraphs if part)


def detokenize(text: str) -> str:
    """Undo the tokenization of CC3M's captions, which sets punctuation apart."""
    return _SPACE_AFTER.sub(r"\1", _SPACE_BEFORE.sub(r"\1", text))
