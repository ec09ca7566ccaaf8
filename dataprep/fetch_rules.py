"""Limits of the fetcher, and the failures that it reports.

Reasons: ``http_<status>``, ``timeout``, ``connection``, ``truncated``, ``dns``, ``tls``,
``redirects``, ``bad_url``, ``bad_response`` (not valid HTTP), ``content_encoding`` (a coding that
was not asked for, or damaged), ``too_large``, ``opt_out``, ``robots_txt``, ``private_address``,
``proxy`` (the proxy does not answer or refuses), ``host_unavailable`` (the host is paused: it did
not answer, or asked for a long pause).
"""

from dataclasses import dataclass, field
from typing import Final

from dataprep.addresses import AddressRules

UNREACHABLE: Final = frozenset({"timeout", "connection", "dns", "proxy", "host_unavailable"})
"Reasons that may come from a network outage rather than from a dead link."
_RETRIED_REASONS: Final = frozenset({"timeout", "connection", "truncated", "proxy"})
_RETRIED_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_MAX_DETAIL: Final = 500


@dataclass(frozen=True)
class FetchRules:
    """Limits and headers of the client."""

    user_agent: str
    "Value of the User-Agent header."
    connect_timeout_s: float = 5.0
    "Largest number of seconds until a connection is open."
    read_timeout_s: float = 10.0
    "Largest number of seconds between two pieces of a body."
    total_timeout_s: float = 30.0
    "Largest number of seconds of one attempt, redirects included."
    max_bytes: int = 50 << 20
    "Largest size of a body in bytes, before and after its Content-Encoding is undone."
    max_redirects: int = 5
    "Largest number of redirects of one attempt."
    max_attempts: int = 3
    "Largest number of attempts per image."
    first_wait_s: float = 0.5
    "Longest wait before the second attempt; doubles with each attempt, half of it random."
    max_connections: int = 64
    "Largest number of open connections, which also bounds the bodies in memory."
    obey_robots_txt: bool = False
    "Whether to read and obey each site's robots.txt."
    addresses: AddressRules = field(default_factory=AddressRules)
    "Addresses that requests may go to."


class FetchError(Exception):
    """A failed fetch: ``reason`` is one of the module's, ``detail`` is text for people.

    A detail may quote a server, so it is cut, and bytes that are not text are written as escapes:
    a table takes every detail.
    """

    def __init__(self, reason: str, detail: str = "", retry_after_s: float = 0.0) -> None:
        detail = detail[:_MAX_DETAIL].encode("utf-8", "backslashreplace").decode()
        super().__init__(reason, detail, retry_after_s)
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

    @property
    def retried(self) -> bool:
        """Whether another attempt may help."""
        status = self.reason.removeprefix("http_")
        return self.reason in _RETRIED_REASONS or (
            status.isdigit() and int(status) in _RETRIED_STATUS
        )
