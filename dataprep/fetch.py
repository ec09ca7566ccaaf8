"""A fetcher of many images at once, with a reason for each failure.

Timeouts, resets, 408, 429 and 5xx are retried after a jittered wait or after the ``Retry-After``
time; 403, 404, 410 and every fault of the image itself are final. Each request first acquires its
host from a limiter (``dataprep.host_limiter``), which may be shared by a whole cluster. Each target
of a redirect, of a robots.txt too, is checked and limited like a URL of the list, and cookies live
as long as one image's chain of redirects. The reasons are listed in ``dataprep.fetch_rules``.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from time import monotonic, time
from typing import Any, Final, TypeVar

import aiohttp
from yarl import URL

from dataprep.addresses import Resolver
from dataprep.content_encoding import decoded
from dataprep.fetch_rules import UNREACHABLE, FetchError, FetchRules
from dataprep.host_limiter import Answer, HostUnavailable, Limiter
from dataprep.http_client import HttpClient
from dataprep.proxies import Proxies
from dataprep.robots import MAX_ROBOTS_BYTES, MAX_ROBOTS_REDIRECTS, RobotsTxt, opted_out
from dataprep.urls import sendable

__all__ = ["UNREACHABLE", "FetchError", "FetchRules", "Fetcher"]

T = TypeVar("T")
Read = Callable[[aiohttp.ClientResponse], Awaitable[T]]

_DNS_THREADS: Final = 32
_LONGEST_WAIT_S: Final = 30.0
_LONGEST_RETRY_AFTER_S: Final = 24 * 3600.0


@dataclass
class _Chain:
    """An attempt: a request and the redirects that follow it."""

    url: str
    "Where it begins."
    time_left_s: float
    "The time of requests alone: the limiter's and the connection slots' is not the server's."
    cookies: aiohttp.CookieJar = field(
        default_factory=partial(aiohttp.CookieJar, unsafe=True, quote_cookie=False)
    )


class Fetcher:
    """Fetches URLs in one event loop."""

    def __init__(
        self,
        rules: FetchRules,
        limiter: Limiter,
        resolver: Resolver | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        """Open the client; must be called inside its event loop.

        Args:
            rules: limits and headers.
            limiter: of requests per host.
            resolver: of host names; the system's by default.
            proxies: of requests; the environment's by default.

        Raises:
            ValueError: the environment names a proxy that is not an HTTP proxy.
        """
        self.rules = rules
        self.limiter = limiter
        self._slots = asyncio.Semaphore(rules.max_connections)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_DNS_THREADS, "dns"))
        self._client = HttpClient(
            rules, resolver or Resolver(rules.addresses), proxies or Proxies.of_environment()
        )
        self._robots = RobotsTxt(self._read_robots)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

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
        failure: FetchError | None = None
        num_failed = 0
        while True:
            try:
                return await self._attempt(url)
            except FetchError as error:
                # "host_unavailable" on a retry says less than the first attempt's failure.
                if failure is None or error.reason != "host_unavailable":
                    failure = error
            num_failed += 1
            if num_failed == self.rules.max_attempts or not failure.retried:
                raise failure
            await asyncio.sleep(self._wait(num_failed))

    def _wait(self, num_failed: int) -> float:
        """Return a jittered wait in seconds; the limiter itself keeps a Retry-After."""
        longest = self.rules.first_wait_s * 2 ** (num_failed - 1)
        return min(longest * random.uniform(0.5, 1.0), _LONGEST_WAIT_S)

    async def _attempt(self, text: str) -> tuple[bytes, Callable[[], None]]:
        url, chain = sendable(text), _Chain(text, self.rules.total_timeout_s)
        for _ in range(self.rules.max_redirects + 1):
            if self.rules.obey_robots_txt:
                await self._robots.check(url)
            answer = await self._request(url, chain, self._read_image)
            if not isinstance(answer, URL):
                return answer, self._slots.release
            url = answer
        raise FetchError(
            "redirects", f"more than {self.rules.max_redirects} redirects, last to {url}"
        )

    async def _read_robots(self, url: URL) -> bytes:
        """Return a robots.txt, or no bytes where RFC 9309 takes it for unavailable."""
        chain = _Chain(str(url), self.rules.total_timeout_s)
        for _ in range(MAX_ROBOTS_REDIRECTS + 1):
            answer = await self._request(url, chain, _rules_body)
            if not isinstance(answer, URL):
                self._slots.release()
                return answer
            url = answer
        return b""

    async def _request(self, url: URL, chain: "_Chain", read: Read[T]) -> T | URL:
        """Send one request; return what is read, whose slot stays held, or a redirect's target."""
        host = url.raw_host or ""
        try:
            await self.limiter.acquire(host)
        except HostUnavailable:
            raise FetchError(
                "host_unavailable", f"{host} is paused after failures or by its Retry-After"
            ) from None
        await self._slots.acquire()
        kept, answer, started = False, Answer(reached=True), monotonic()
        try:
            async with asyncio.timeout(chain.time_left_s):
                result = await self._client.get(url, chain.cookies, read)
            kept = not isinstance(result, URL)
            return result
        except FetchError as error:
            answer = Answer(error.reason not in UNREACHABLE, error.retry_after_s)
            raise
        except TimeoutError:
            answer = Answer(reached=False)
            limit = self.rules.total_timeout_s
            raise FetchError("timeout", f"{chain.url}: not complete after {limit:g} s") from None
        except asyncio.CancelledError:
            answer = Answer(reached=False)
            raise
        finally:
            chain.time_left_s -= monotonic() - started
            self.limiter.release(host, answer)
            if not kept:
                self._slots.release()

    async def _read_image(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self.rules.max_bytes
        if response.status != 200:
            raise _refusal(response)
        if directives := opted_out(response.headers.getall("X-Robots-Tag", [])):
            raise FetchError("opt_out", f"X-Robots-Tag: {', '.join(directives)}")
        if (response.content_length or 0) > limit:
            raise FetchError("too_large", f"{response.content_length} bytes, the limit is {limit}")
        body = await _first_bytes(response, limit + 1)
        if len(body) > limit:
            raise FetchError("too_large", f"the body exceeds {limit} bytes")
        return await _without_codings(response, body, limit)


async def _rules_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the rules of a robots.txt: none if it is unavailable (RFC 9309, 2.3.1.3)."""
    if response.status >= 500:
        raise _refusal(response)
    if response.status != 200:
        return b""
    body = await _first_bytes(response, MAX_ROBOTS_BYTES)
    return await _without_codings(response, body, MAX_ROBOTS_BYTES)


def _refusal(response: aiohttp.ClientResponse) -> FetchError:
    wait = response.headers.get("Retry-After", "") if response.status in (429, 503) else ""
    return FetchError(f"http_{response.status}", str(response.url), _seconds(wait))


async def _first_bytes(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return a body, cut at a number of bytes."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk[: limit - size])
        size += len(chunks[-1])
        if size == limit:
            break
    return b"".join(chunks)


async def _without_codings(response: aiohttp.ClientResponse, body: bytes, limit: int) -> bytes:
    codings = ",".join(response.headers.getall("Content-Encoding", []))
    if not codings:
        return body
    return await asyncio.to_thread(decoded, body, codings, limit)


def _seconds(retry_after: str) -> float:
    """Return the wait of a ``Retry-After`` header, which holds seconds or a date."""
    if re.fullmatch(r"[0-9]+", retry_after):
        return min(float(retry_after), _LONGEST_RETRY_AFTER_S)
    try:
        wait = parsedate_to_datetime(retry_after).timestamp() - time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), _LONGEST_RETRY_AFTER_S)
