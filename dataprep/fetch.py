"""An HTTP client that fetches many images concurrently and gives a reason for each failure.

Timeouts, resets, 408, 429 and 5xx are retried after a jittered wait or after the ``Retry-After``
time; 403, 404, 410 and every fault of the image itself are final. Each request first acquires its
host from a limiter (``dataprep.host_limiter``), which may be shared by a whole cluster. The client
follows redirects itself, so that the target of each one is checked and limited too.

Reasons: ``http_<status>``, ``timeout``, ``connection``, ``truncated``, ``dns``, ``tls``,
``redirects``, ``bad_url``, ``too_large``, ``opt_out``, ``robots_txt``, ``private_address``,
``host_unavailable`` (the host is paused: it did not answer, or asked for a long pause).
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from dataprep.addresses import AddressRules, PrivateAddress, Resolver, is_literal
from dataprep.host_limiter import Answer, HostUnavailable, Limiter
from dataprep.robots import RobotsTxt, opted_out

UNREACHABLE: Final = frozenset({"timeout", "connection", "dns", "host_unavailable"})
"Reasons that may come from a network outage rather than from a dead link."
_RETRIED_REASONS: Final = frozenset({"timeout", "connection", "truncated"})
_RETRIED_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ACCEPT: Final = "image/jpeg, image/png, image/gif, image/webp, */*;q=0.5"
"Sites that negotiate the format must not send one that OpenCV cannot decode."
_DNS_THREADS: Final = 32
_DNS_TTL_S: Final = 600
_LONGEST_WAIT_S: Final = 30.0


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
    "Largest size of a body in bytes."
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
    """A failed fetch: ``reason`` is one of the module's, ``detail`` is text for people."""

    def __init__(self, reason: str, detail: str = "", retry_after_s: float = 0.0) -> None:
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


class Fetcher:
    """A client in one event loop; its connections and DNS answers are reused between calls."""

    def __init__(self, rules: FetchRules, limiter: Limiter) -> None:
        """Open the client; must be called inside its event loop."""
        self.rules = rules
        self.limiter = limiter
        self._slots = asyncio.Semaphore(rules.max_connections)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_DNS_THREADS, "dns"))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, resolver=Resolver(rules.addresses), ttl_dns_cache=_DNS_TTL_S
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=rules.connect_timeout_s, sock_read=rules.read_timeout_s
            ),
            headers={"User-Agent": rules.user_agent, "Accept": _ACCEPT},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._robots = RobotsTxt(self._session, limiter, rules.total_timeout_s)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def fetch_all(
        self, urls: Sequence[str], finish: Callable[[bytes], Any], threads: ThreadPoolExecutor
    ) -> list[Any]:
        """Fetch every URL; return for each the value of ``finish(body)`` or a :class:`FetchError`.

        ``finish`` runs in ``threads`` while other URLs are fetched. A URL that fails never raises.
        """
        loop = asyncio.get_running_loop()

        async def one(url: str) -> Any:
            try:
                body, release = await self._with_retries(url)
            except FetchError as error:
                return error
            try:
                return await loop.run_in_executor(threads, finish, body)
            finally:
                release()

        return await asyncio.gather(*map(one, urls))

    async def _with_retries(self, url: str) -> tuple[bytes, Callable[[], None]]:
        """Return a body and the function that frees its connection slot."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda e: isinstance(e, FetchError) and e.retried),
            stop=stop_after_attempt(self.rules.max_attempts),
            wait=self._wait,
            reraise=True,
        )
        before: list[FetchError] = []

        async def attempt() -> tuple[bytes, Callable[[], None]]:
            try:
                return await self._attempt(url)
            except FetchError as error:
                # "host_unavailable" on a retry says less than the first attempt's failure.
                kept = before[-1] if before and error.reason == "host_unavailable" else error
                before.append(kept)
                raise kept from None

        result: tuple[bytes, Callable[[], None]] = await retrying(attempt)
        return result

    def _wait(self, state: RetryCallState) -> float:
        """Return a jittered wait; the limiter itself keeps a Retry-After."""
        longest = self.rules.first_wait_s * 2 ** (state.attempt_number - 1)
        return min(longest * random.uniform(0.5, 1.0), _LONGEST_WAIT_S)

    async def _attempt(self, url: str) -> tuple[bytes, Callable[[], None]]:
        seconds = self.rules.total_timeout_s
        try:
            async with asyncio.timeout(seconds) as deadline:
                for _ in range(self.rules.max_redirects + 1):
                    if self.rules.obey_robots_txt and not await self._robots.allows(url):
                        raise FetchError("robots_txt", f"the site's robots.txt disallows {url}")
                    answer = await self._request(url, deadline)
                    if isinstance(answer, bytes):
                        return answer, self._slots.release
                    url = answer
        except TimeoutError:
            raise FetchError("timeout", f"{url}: not complete after {seconds:g} s") from None
        raise FetchError(
            "redirects", f"more than {self.rules.max_redirects} redirects, last to {url}"
        )

    async def _request(self, url: str, deadline: asyncio.Timeout) -> bytes | str:
        """Send one request; return its body, whose slot stays held, or the redirect's target."""
        host = _host(url)
        if is_literal(host) and not self.rules.addresses.allows(host):
            raise FetchError("private_address", f"{url} leads to a private address")
        with _suspended(deadline):
            try:
                await self.limiter.acquire(host)
            except HostUnavailable:
                raise FetchError(
                    "host_unavailable", f"{host} is paused after failures or by its Retry-After"
                ) from None
            await self._slots.acquire()
        kept, answer = False, Answer(reached=True)
        try:
            body = await self._get(url)
            kept = isinstance(body, bytes)
            return body
        except FetchError as error:
            answer = Answer(error.reason not in UNREACHABLE, error.retry_after_s)
            raise
        except asyncio.CancelledError:  # the attempt's deadline
            answer = Answer(reached=False)
            raise
        finally:
            self.limiter.release(host, answer)
            if not kept:
                self._slots.release()

    async def _get(self, url: str) -> bytes | str:
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return urljoin(url, response.headers["Location"])
                return await _body(response, self.rules)
        except PrivateAddress as error:
            raise FetchError("private_address", str(error)) from None
        except aiohttp.ClientConnectorDNSError as error:
            raise FetchError("dns", str(error)) from None
        except TimeoutError as error:
            raise FetchError("timeout", f"{url}: {error}") from None
        except aiohttp.ClientSSLError as error:
            raise FetchError("tls", str(error)) from None
        except aiohttp.ClientPayloadError as error:
            raise FetchError("truncated", str(error)) from None
        except (aiohttp.InvalidURL, ValueError) as error:
            raise FetchError("bad_url", str(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise FetchError("connection", f"{type(error).__name__}: {error}") from None


@contextmanager
def _suspended(deadline: asyncio.Timeout) -> Iterator[None]:
    """Suspend a deadline: waiting for the limiter does not count as the server's time."""
    now = asyncio.get_running_loop().time
    left = (deadline.when() or now()) - now()
    deadline.reschedule(None)
    try:
        yield
    finally:
        deadline.reschedule(now() + left)


async def _body(response: aiohttp.ClientResponse, rules: FetchRules) -> bytes:
    if response.status != 200:
        wait = response.headers.get("Retry-After", "") if response.status in (429, 503) else ""
        raise FetchError(f"http_{response.status}", str(response.url), _seconds(wait))
    if directives := opted_out(response.headers.getall("X-Robots-Tag", [])):
        raise FetchError("opt_out", f"X-Robots-Tag: {', '.join(directives)}")
    if (response.content_length or 0) > rules.max_bytes:
        raise FetchError(
            "too_large", f"{response.content_length} bytes, the limit is {rules.max_bytes}"
        )
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > rules.max_bytes:
            raise FetchError("too_large", f"the body exceeds {rules.max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _seconds(retry_after: str) -> float:
    """Return the wait of a ``Retry-After`` header, which holds seconds or a date."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time(), 0.0)
    except ValueError:
        return 0.0


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        raise FetchError("bad_url", url) from None
