"""URLs as they are sent: as the list or the redirect has them, byte by byte.

Percent-encoding is never undone or normalized, because a signed URL would lose its signature. Only
what may not stand in a URL (RFC 3986) is percent-encoded. Host names are converted to ASCII
(IDNA 2008 with the mapping of UTS 46), so that the host that is checked is the host that is used.
"""

import re
from typing import Final
from urllib.parse import unquote, urljoin

from yarl import URL

from dataprep.fetch_rules import FetchError

_URL: Final = re.compile(r"(https?)://([^/?#\\]*)([^#]*)", re.IGNORECASE | re.DOTALL)
_ILLEGAL: Final = re.compile(rb"[^!$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~%]|%(?![0-9A-Fa-f]{2})")
"Bytes that may not stand in a path or query; brackets are sent as browsers send them."
_ILLEGAL_IN_HOST: Final = re.compile(r"[\x00-\x20\"#%/<>?@\[\\\]^`{|}\x7f]")
_TRIMMED: Final = "".join(map(chr, range(0x21)))
"C0 controls and the space, which browsers trim from both ends of a URL."


def sendable(text: str) -> URL:
    """Return the URL that is sent for a line of a list.

    Raises:
        FetchError: ``bad_url``: not an HTTP URL, or its host or port is invalid.
    """
    found = _URL.match(re.sub(r"[\t\r\n]", "", text.strip(_TRIMMED)))
    if found is None:
        raise FetchError("bad_url", f"{text}: not an http:// or https:// URL")
    scheme, authority, rest = found.groups()
    try:
        origin = URL(f"{scheme.lower()}://{_authority(authority)}")
        if not origin.raw_host:
            raise ValueError("the host is empty")
        if rest[:1] != "/":
            rest = f"/{rest}"
        escaped = _ILLEGAL.sub(_percent_encoded, rest.encode("utf-8", "surrogateescape"))
        return URL(f"{origin.scheme}://{origin.raw_authority}{escaped.decode()}", encoded=True)
    except ValueError as error:
        raise FetchError("bad_url", f"{text}: {error}") from None


def redirect_target(base: URL, location: str) -> URL:
    """Return the URL that a ``Location`` header names, with backslashes read as browsers do.

    Args:
        base: URL of the answer with the header.
        location: value of the header, bytes outside of UTF-8 as surrogates (``surrogateescape``).

    Raises:
        FetchError: ``bad_url``, see :func:`sendable`.
    """
    try:
        path, *rest = re.split("([?#])", location.strip(_TRIMMED), maxsplit=1)
        return sendable(urljoin(str(base), "".join((path.replace("\\", "/"), *rest))))
    except ValueError as error:
        raise FetchError("bad_url", f"redirect to {location}: {error}") from None


def _authority(text: str) -> str:
    """Return user, host and port with the percent-encoding of the host undone, as browsers do."""
    user, at, host_and_port = text.rpartition("@")
    if host_and_port.startswith("["):  # an IPv6 address
        return text
    host, colon, port = host_and_port.partition(":")
    host = unquote(host, errors="strict")
    if found := _ILLEGAL_IN_HOST.search(host):
        raise ValueError(f"the host contains {found[0]!r}")
    return f"{user}{at}{host}{colon}{port}"


def _percent_encoded(found: "re.Match[bytes]") -> bytes:
    return b"%%%02X" % found[0][0]
