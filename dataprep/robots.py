"""Rules that a site sets for robots: the X-Robots-Tag header and robots.txt (RFC 9309)."""

import asyncio
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

import aiohttp

from dataprep.addresses import PrivateAddress
from dataprep.host_limiter import Answer, HostUnavailable, Limiter

AGENT: Final = "beit3-pipeline"
"Product token of this fetcher in robots.txt and X-Robots-Tag."
OPT_OUT: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
"Directives that keep an image out of the corpus."
_MAX_SITES: Final = 10_000
"Number of cached robots.txt files above which the cache is emptied."
_MAX_BYTES: Final = 500 << 10
"Largest part of a robots.txt that is read: the least that RFC 9309 asks for."


def opted_out(headers: Iterable[str]) -> list[str]:
    """Return the opt-out directives that ``X-Robots-Tag`` headers address to this fetcher.

    A header has the form ``directive, directive, …`` or ``robot: directive, …`` for one robot.
    """
    found: set[str] = set()
    for header in headers:
        first, _, rest = header.partition(":")
        for_one_robot = bool(rest) and "," not in first and " " not in first.strip()
        if for_one_robot and first.strip().lower() not in (AGENT, "*"):
            continue
        directives = rest if for_one_robot else header
        found |= {directive.strip().lower() for directive in directives.split(",")} & OPT_OUT
    return sorted(found)


def parse_robots(status: int, text: str) -> RobotFileParser:
    """Return the rules of a robots.txt: a missing file allows all, a 5xx answer allows nothing."""
    rules = RobotFileParser()
    nothing = ["User-agent: *", "Disallow: /"]
    rules.parse(text.splitlines() if status == 200 else nothing if status >= 500 else [])
    return rules


class RobotsTxt:
    """The robots.txt files of sites, each fetched once."""

    def __init__(self, session: aiohttp.ClientSession, limiter: Limiter, timeout_s: float) -> None:
        self._session, self._limiter, self._timeout_s = session, limiter, timeout_s
        self._rules: dict[str, asyncio.Task[RobotFileParser]] = {}

    async def allows(self, url: str) -> bool:
        """Return whether the site's robots.txt allows this fetcher to read a URL."""
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc}"
        if site not in self._rules:
            if len(self._rules) > _MAX_SITES:
                self._rules.clear()
            self._rules[site] = asyncio.create_task(self._read(site, parts.hostname or ""))
        rules = await asyncio.shield(self._rules[site])
        return rules.can_fetch(AGENT, url)

    async def _read(self, site: str, host: str) -> RobotFileParser:
        try:
            await self._limiter.acquire(host)
        except HostUnavailable:
            return parse_robots(503, "")
        reached = False
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.get(f"{site}/robots.txt") as response,
            ):
                reached = True
                text = (await response.content.read(_MAX_BYTES)).decode("utf-8", "replace")
                return parse_robots(response.status, text)
        except (aiohttp.ClientError, OSError, PrivateAddress, ValueError):
            return parse_robots(503, "")
        finally:
            self._limiter.release(host, Answer(reached))
