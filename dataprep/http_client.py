"""One HTTP request: guarded, bounded, and with a reason for whatever goes wrong.

Redirects are not followed here: the caller checks and limits each target as it does each URL.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from dataprep.addresses import PrivateAddress, Resolver
from dataprep.content_encoding import ACCEPTED
from dataprep.fetch_rules import FetchError, FetchRules
from dataprep.proxies import Proxies
from dataprep.response_handler import MAX_HEAD_BYTES, BoundedConnector
from dataprep.urls import redirect_target

T = TypeVar("T")

# It warns of each cookie that it cannot read, with the server's text; such a cookie is not sent.
logging.getLogger("aiohttp.client").setLevel(logging.ERROR)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ACCEPT: Final = "image/jpeg, image/png, image/gif, image/webp, */*;q=0.5"
"Sites that negotiate the format must not send one that cannot be decoded."
_DNS_TTL_S: Final = 600
_MAX_HEADERS: Final = 1024


class HttpClient:
    """A client in one event loop; its connections and DNS answers are reused between calls."""

    def __init__(self, rules: FetchRules, resolver: Resolver, proxies: Proxies) -> None:
        """Open the client; must be called inside its event loop."""
        self.rules, self.proxies = rules, proxies
        resolver.trusted_hosts |= proxies.addresses()
        resolver.trusted_addresses |= proxies.addresses()
        self._session = aiohttp.ClientSession(
            connector=BoundedConnector(
                limit=0,
                resolver=resolver,
                ttl_dns_cache=_DNS_TTL_S,
                socket_factory=resolver.open_socket,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=rules.connect_timeout_s, sock_read=rules.read_timeout_s
            ),
            headers={
                "User-Agent": rules.user_agent,
                "Accept": _ACCEPT,
                "Accept-Encoding": ACCEPTED,
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=_MAX_HEADERS,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def get(
        self,
        url: URL,
        cookies: aiohttp.CookieJar,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T | URL:
        """Send one request; return what ``read`` makes of the answer, or a redirect's target.

        Args:
            url: from :func:`dataprep.urls.sendable`.
            cookies: the jar of a chain of redirects: sent, and filled from the answer.
            read: called with an answer that is not a redirect.

        Raises:
            FetchError: the request failed, or ``read`` raised it.
        """
        try:
            proxy = self._checked(url)
            sent = cookies.filter_cookies(url)
            pairs = "; ".join(f"{cookie.key}={cookie.coded_value}" for cookie in sent.values())
            headers = {"Cookie": pairs} if pairs else None
            async with self._session.get(
                url, allow_redirects=False, headers=headers, proxy=proxy
            ) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    cookies.update_cookies_from_headers(
                        response.headers.getall("Set-Cookie", []), url
                    )
                    return redirect_target(url, response.headers["Location"])
                return await read(response)
        except FetchError:
            raise
        except Exception as error:  # whatever a server makes aiohttp raise is this row's alone
            raise _as_fetch_error(url, error) from None

    def _checked(self, url: URL) -> URL | None:
        """Return the proxy for a URL that the rules allow.

        Raises:
            PrivateAddress: the URL leads to a private address or to a proxy itself.
        """
        rules, host = self.rules.addresses, url.raw_host or ""
        if rules.target(host) is not None:
            return None
        rules.check_host(host)
        if not rules.allow_private and (host, url.port) in self.proxies.addresses():
            raise PrivateAddress(f"{host}:{url.port} is the proxy")
        return self.proxies.of(url)


def _as_fetch_error(url: URL, error: Exception) -> FetchError:
    """Return the reason for an exception of aiohttp."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, PrivateAddress):
        return FetchError("private_address", str(cause))
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return FetchError("proxy", str(error))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FetchError("dns", str(error))
    if isinstance(error, TimeoutError):
        return FetchError("timeout", f"{url}: {error}")
    if isinstance(error, aiohttp.ClientSSLError):
        return FetchError("tls", str(error))
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError("truncated", str(error))
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return FetchError("bad_url", f"{url}: {error}")
    if isinstance(error, aiohttp.ClientResponseError):
        return FetchError("bad_response", f"{url}: {error.message}")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return FetchError("connection", f"{type(error).__name__}: {error}")
    return FetchError("bad_response", f"{url}: {type(error).__name__}: {error}")
