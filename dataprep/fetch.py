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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Final, TypeVar

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
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

    async def _attempt(self, text: str) -> tuple[bytes, Callable[[], None]]:
        url, cookies = sendable(text), aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        async with self._deadline(text) as deadline:
            for _ in range(self.rules.max_redirects + 1):
                if self.rules.obey_robots_txt:
                    with _suspended(deadline):
                        await self._robots.check(url)
                answer = await self._request(url, cookies, self._read_image, deadline)
                if not isinstance(answer, URL):
                    return answer, self._slots.release
                url = answer
        raise FetchError(
            "redirects", f"more than {self.rules.max_redirects} redirects, last to {url}"
        )

    async def _read_robots(self, url: URL) -> bytes:
        """Return a robots.txt, or no bytes where RFC 9309 takes it for unavailable."""
        cookies = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        async with self._deadline(str(url)) as deadline:
            for _ in range(MAX_ROBOTS_REDIRECTS + 1):
                answer = await self._request(url, cookies, _rules_body, deadline)
                if not isinstance(answer, URL):
                    self._slots.release()
                    return answer
                url = answer
        return b""

    @asynccontextmanager
    async def _deadline(self, url: str) -> AsyncIterator[asyncio.Timeout]:
        """Limit the time of an attempt."""
        seconds = self.rules.total_timeout_s
        try:
            async with asyncio.timeout(seconds) as deadline:
                yield deadline
        except TimeoutError:
            raise FetchError("timeout", f"{url}: not complete after {seconds:g} s") from None

    async def _request(
        self, url: URL, cookies: aiohttp.CookieJar, read: Read[T], deadline: asyncio.Timeout
    ) -> T | URL:
        """Send one request; return what is read, whose slot stays held, or a redirect's target."""
        host = url.raw_host or ""
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
            result = await self._client.get(url, cookies, read)
            kept = not isinstance(result, URL)
            return result
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


def _seconds(retry_after: str) -> float:
    """Return the wait of a ``Retry-After`` header, which holds seconds or a date."""
    if re.fullmatch(r"[0-9]+", retry_after):
        return min(float(retry_after), _LONGEST_RETRY_AFTER_S)
    try:
        wait = parsedate_to_datetime(retry_after).timestamp() - time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), _LONGEST_RETRY_AFTER_S)
