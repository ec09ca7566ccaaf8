"""Content-Encoding, judged by the bytes: many servers label files that they do not encode."""

import zlib
from typing import Final

from dataprep.fetch_rules import FetchError
from dataprep.image_formats import has_image_signature

ACCEPTED: Final = "gzip, deflate"
"Value of the Accept-Encoding header."
_MAX_CODINGS: Final = 4
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_BITS: Final = 31
_DEFLATE_BITS: Final = (zlib.MAX_WBITS, -zlib.MAX_WBITS)
"With the zlib header that RFC 9110 asks for, and without it as some servers send it."


def decoded(body: bytes, codings: str, max_bytes: int) -> bytes:
    """Return a body without its codings; an image or a body that is not encoded is kept.

    Args:
        body: as received.
        codings: value of the Content-Encoding header, the coding applied first at the front.
        max_bytes: largest size of the result.

    Raises:
        FetchError: ``content_encoding``: unknown or damaged; ``too_large``; ``truncated``.
    """
    names = [name.strip().lower() for name in codings.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > _MAX_CODINGS:
        raise FetchError("content_encoding", f"{len(names)} codings, the limit is {_MAX_CODINGS}")
    for name in reversed(names):
        if has_image_signature(body):
            return body
        if body.startswith(_GZIP_MAGIC):
            body = _gunzipped(body, max_bytes)
        elif name == "deflate":
            body = _inflated(body, max_bytes)
        elif name not in ("gzip", "x-gzip"):
            raise FetchError("content_encoding", f"{name} was not asked for (asked: {ACCEPTED})")
    return body


def _gunzipped(body: bytes, max_bytes: int) -> bytes:
    """Return the members of a gzip file; bytes after the last one are ignored."""
    members, size = [], 0
    while body.startswith(_GZIP_MAGIC):
        unzip = zlib.decompressobj(_GZIP_BITS)
        try:
            members.append(unzip.decompress(body, max_bytes - size + 1))
        except zlib.error as error:
            raise FetchError("content_encoding", f"damaged gzip: {error}") from None
        size += len(members[-1])
        if size > max_bytes:
            raise FetchError("too_large", f"unzips to more than {max_bytes} bytes")
        if not unzip.eof:
            raise FetchError("truncated", "the gzip data end early")
        body = unzip.unused_data
    return b"".join(members)


def _inflated(body: bytes, max_bytes: int) -> bytes:
    for bits in _DEFLATE_BITS:
        unzip = zlib.decompressobj(bits)
        try:
            result = unzip.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(result) > max_bytes:
            raise FetchError("too_large", f"inflates to more than {max_bytes} bytes")
        if unzip.eof:
            return result
    return body
