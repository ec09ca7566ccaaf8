"""Bytes of an HTML page to text, by the WHATWG encoding standard (https://encoding.spec.whatwg.org).

The label in force is the first of: a byte order mark, the label in the HTTP headers, the label that
the page declares. ``webencodings`` has the standard's table of labels and most of its encodings:
Python's GBK and EUC-JP have fewer characters than the web's.
"""

import codecs
import re
from contextlib import suppress
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
_WEB_GBK: Final = "dataprep-web-gbk"
_WEB_EUC_JP: Final = "dataprep-web-euc-jp"
"Names of the error handlers below."


def decode_page(page: bytes, header_label: str | None) -> str | bytes:
    """Return the text of a page, with U+FFFD for bytes that its encoding does not have.

    A page without a known label is UTF-8 if most of its bytes outside of ASCII are; else it is
    returned as bytes: the caller has to guess.

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
        return _decode(page, encoding)
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(page)  # drops a cut character
    num_bad = text.count("\ufffd")
    return text if num_bad <= sum(not c.isascii() for c in text) - num_bad else page


def _decode(page: bytes, encoding: webencodings.Encoding) -> str:
    if encoding.name in ("gbk", "gb18030"):
        return page.decode("gb18030", _WEB_GBK)
    if encoding.name == "euc-jp":
        return page.decode("euc_jp", _WEB_EUC_JP)
    return str(encoding.codec_info.decode(page, "replace")[0])


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


def _other_gbk(error: UnicodeError) -> tuple[str, int]:
    """Return what stands at a byte that Python's GB18030 does not have: the web's has a euro."""
    assert isinstance(error, UnicodeDecodeError)
    is_euro = error.object[error.start] == 0x80
    return ("€", error.start + 1) if is_euro else ("\ufffd", error.end)


def _other_euc_jp(error: UnicodeError) -> tuple[str, int]:
    """Return what stands at bytes that Python's EUC-JP does not have: the web's has vendors' rows.

    They are the same as those of Shift_JIS, whose bytes follow from the row and the cell.
    """
    assert isinstance(error, UnicodeDecodeError)
    row, cell = (byte - 0xA1 for byte in (*error.object[error.start : error.start + 2], 0)[:2])
    if 0 <= row < 94 and 0 <= cell < 94:
        lead = row // 2 + (0x81 if row < 62 else 0xC1)
        trail = cell + (0x9F if row % 2 else 0x40 if cell < 63 else 0x41)
        with suppress(UnicodeDecodeError):
            return bytes((lead, trail)).decode("cp932"), error.start + 2
    return "\ufffd", error.end


codecs.register_error(_WEB_GBK, _other_gbk)
codecs.register_error(_WEB_EUC_JP, _other_euc_jp)
