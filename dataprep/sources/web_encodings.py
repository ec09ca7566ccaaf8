"""Bytes of an HTML page to text, by the WHATWG encoding standard (https://encoding.spec.whatwg.org).

The label in force is the first of: a byte order mark, the label in the HTTP headers, the label that
the page declares. ``webencodings`` has the standard's table of labels and its
encodings.
"""

import codecs
import re
from typing import Final

import webencodings

_DECLARED: Final = (
    re.compile(rb"""^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([^"'>]+)""", re.IGNORECASE),
    re.compile(rb"""<meta\s[^>]*?charset\s*=\s*["']?\s*([^\s"'/>;]+)""", re.IGNORECASE),
)
_COMMENT: Final = re.compile(rb"<!--.*?-->", re.DOTALL)
_MAX_HEAD_BYTES: Final = 1 << 14
"Part of a page that is searched for its label."
_UTF_16: Final = ("utf-16le", "utf-16be")


def decode_page(page: bytes, header_label: str | None) -> str | bytes:
    """Return the text of a page, with U+FFFD for bytes that its encoding does not have.

    A page without a known label that is not UTF-8 is returned as bytes: the caller has to guess.

    Args:
        page: HTML, possibly cut at its end.
        header_label: label in the HTTP headers, if any.

    Raises:
        ValueError: the label is one of those that the standard does not decode.
    """
    for mark, codec in ((codecs.BOM_UTF8, "utf-8"), (b"\xfe\xff", "utf-16be"),
                        (b"\xff\xfe", "utf-16le")):  # fmt: skip
        if page.startswith(mark):
            return page[len(mark) :].decode(codec, errors="replace")
    encoding = _encoding(header_label) or _declared(page)
    if encoding is not None:
        return str(encoding.codec_info.decode(page, "replace")[0])
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(page)  # accepts a cut last character
    except UnicodeDecodeError:
        return page


def _declared(page: bytes) -> webencodings.Encoding | None:
    head = _COMMENT.sub(b"", page[:_MAX_HEAD_BYTES])
    for pattern in _DECLARED:
        for found in pattern.finditer(head):
            encoding = _encoding(found[1].decode("latin-1"))
            if encoding is not None:  # a label that was read as ASCII cannot name UTF-16
                return webencodings.UTF8 if encoding.name in _UTF_16 else encoding
    return None


def _encoding(label: str | None) -> webencodings.Encoding | None:
    """Return the encoding of a label, or None for a label that the standard does not have."""
    encoding = webencodings.lookup(label) if label else None
    if encoding is not None and encoding.name == "replacement":
        raise ValueError(f"charset {label} is not decoded (WHATWG encoding standard, 4.2)")
    return encoding
