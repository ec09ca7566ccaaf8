"""Fetching pictures over HTTP: many at once, politely, with a reason for each that fails.

Timeouts, resets, 429 and 5xx are tried again after a jittered wait (or what ``Retry-After``
says); 403, 404, 410 and everything about the picture itself are final. Each host gets a bounded
number of connections. Private addresses are refused unless the rules allow them, so that a list
file cannot make a cluster probe its own network; redirects are checked hop by hop.
"""

import asyncio
import fnmatch
import ipaddress
import random
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

OPT_OUT_TOKENS: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRIED_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_RETRIED_REASONS: Final = frozenset({"timeout", "connection", "truncated"})
_LONGEST_WAIT_S: Final = 30.0


@dataclass(frozen=True)
class FetchRules:
    """How to fetch."""

    user_agent: str
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 10.0
    "Longest silence while a body arrives."
    total_timeout_s: float = 30.0
    max_bytes: int = 50 << 20
    max_redirects: int = 5
    attempts: int = 3
    first_wait_s: float = 0.5
    "Before the second attempt; doubles with each, half of it random."
    connections: int = 64
    connections_per_host: int = 8
    allow_private_addresses: bool = False
    connect_to: Mapping[str, str] = field(default_factory=dict)
    "``ADDRESS:PORT`` by host pattern, in place of what DNS says (as curl's --connect-to)."


class FetchError(Exception):
    """A fetch that failed; ``reason`` is a class, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def retried(self) -> bool:
        """Whether another attempt may help."""
        status = self.reason.removeprefix("http_")
        return self.reason in _RETRIED_REASONS or (
            status.isdigit() and int(status) in _RETRIED_STATUS
        )


async def fetch_all(
    urls: Sequence[str], rules: FetchRules, finish: Callable[[int, bytes], Any]
) -> list[Any]:
    """Fetch every URL; return what ``finish(index, body)`` gives or the :class:`FetchError`.

    ``finish`` runs in a thread, beside the fetching of the others.
    """
    timeout = aiohttp.ClientTimeout(
        total=rules.total_timeout_s,
        sock_connect=rules.connect_timeout_s,
        sock_read=rules.read_timeout_s,
    )
    connector = aiohttp.TCPConnector(
        limit=rules.connections,
        limit_per_host=rules.connections_per_host,
        resolver=_Resolver(rules),
    )
    hosts: dict[str, asyncio.Semaphore] = defaultdict(
        lambda: asyncio.Semaphore(rules.connections_per_host)
    )
    everything = asyncio.Semaphore(rules.connections)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers={"User-Agent": rules.user_agent},
        auto_decompress=True,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:

        async def one(index: int, url: str) -> Any:
            try:
                async with everything, hosts[_host(url)]:
                    body = await _fetch_with_retries(session, url, rules)
                return await asyncio.to_thread(finish, index, body)
            except FetchError as error:
                return error

        return await asyncio.gather(*(one(i, url) for i, url in enumerate(urls)))


async def _fetch_with_retries(session: aiohttp.ClientSession, url: str, rules: FetchRules) -> bytes:
    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, FetchError) and error.retry_after_s is not None:
            return min(error.retry_after_s, _LONGEST_WAIT_S)
        longest = rules.first_wait_s * 2 ** (state.attempt_number - 1)
        return min(longest * random.uniform(0.5, 1.0), _LONGEST_WAIT_S)

    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e, FetchError) and e.retried),
        stop=stop_after_attempt(rules.attempts),
        wait=wait,
        reraise=True,
    )
    body: bytes = await retrying(_fetch, session, url, rules)
    return body


async def _fetch(session: aiohttp.ClientSession, url: str, rules: FetchRules) -> bytes:
    for _ in range(rules.max_redirects + 1):
        _refuse_private(url, rules)
        try:
            async with session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    continue
                return await _body(response, rules)
        except aiohttp.ClientConnectorDNSError as error:
            raise FetchError("dns", str(error)) from None
        except TimeoutError:
            raise FetchError("timeout", f"{url}: no answer in time") from None
        except aiohttp.ClientPayloadError as error:
            raise FetchError("truncated", str(error)) from None
        except aiohttp.InvalidURL as error:
            raise FetchError("bad_url", str(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise FetchError("connection", f"{type(error).__name__}: {error}") from None
    raise FetchError("redirects", f"more than {rules.max_redirects}, the last to {url}")


async def _body(response: aiohttp.ClientResponse, rules: FetchRules) -> bytes:
    if response.status != 200:
        raise FetchError(
            f"http_{response.status}", str(response.url), _retry_after(response.headers)
        )
    tokens = {
        token.strip().lower().split(":")[-1].strip()
        for value in response.headers.getall("X-Robots-Tag", [])
        for token in value.split(",")
    }
    if found := tokens & OPT_OUT_TOKENS:
        raise FetchError("opt_out", f"X-Robots-Tag: {', '.join(sorted(found))}")
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > rules.max_bytes:
            raise FetchError("too_large", f"over {rules.max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _refuse_private(url: str, rules: FetchRules) -> None:
    """Names are checked when they are resolved; this is for literal addresses."""
    try:
        address = ipaddress.ip_address(_host(url))
    except ValueError:
        return
    if not address.is_global and not rules.allow_private_addresses:
        raise FetchError("private_address", url)


class _Resolver(AbstractResolver):
    """DNS, less private addresses, with the replacements of ``connect_to``."""

    def __init__(self, rules: FetchRules) -> None:
        self.rules = rules
        self.dns = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        for pattern, target in self.rules.connect_to.items():
            if fnmatch.fnmatch(host, pattern):
                address, _, target_port = target.rpartition(":")
                return [
                    ResolveResult(
                        hostname=host,
                        host=address,
                        port=int(target_port),
                        family=socket.AF_INET,
                        proto=0,
                        flags=socket.AI_NUMERICHOST,
                    )
                ]
        # RFC 6761: names under .invalid never exist; some networks are slow to say so.
        if host.endswith(".invalid"):
            raise OSError(f"{host} does not exist")
        found = await self.dns.resolve(host, port, family)
        if self.rules.allow_private_addresses:
            return found
        public = [r for r in found if ipaddress.ip_address(r["host"]).is_global]
        if found and not public:
            raise FetchError("private_address", f"{host} is {found[0]['host']}")
        return public

    async def close(self) -> None:
        await self.dns.close()
