"""Rules that a site sets for robots: the X-Robots-Tag header and robots.txt (RFC 9309)."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from protego import Protego
from yarl import URL

from dataprep.fetch_rules import FetchError

AGENT: Final = "beit3-pipeline"
"Product token of this fetcher in robots.txt and X-Robots-Tag."
OPT_OUT: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"Directives that keep an image out of the corpus; ``none`` stands for ``noindex, nofollow``."
MAX_ROBOTS_BYTES: Final = 500 << 10
"Largest part of a robots.txt that is read: the least that RFC 9309 (2.5) asks for."
MAX_ROBOTS_REDIRECTS: Final = 5
"Number of redirects that RFC 9309 (2.3.1.2) asks to follow."
_DIRECTIVES: Final = OPT_OUT | {
    *("all", "index", "follow", "nofollow", "archive", "noarchive", "nocache", "nosnippet"),
    *("notranslate", "nositelinkssearchbox", "indexifembedded", "noodp", "noydir", "notranscribe"),
    *("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"),
}
"What may follow a robot's name; a name before anything else is a directive with a value."
_MAX_SITES: Final = 10_000
"Number of cached robots.txt files above which the cache is emptied."
_CACHED_S: Final = 24 * 3600
"Longest time for which a robots.txt is cached (RFC 9309, 2.4)."
_AGENT_LINE: Final = re.compile(r"^([ \t]*user[- ]?agent[ \t]*:)([^#\r\n]*)", re.IGNORECASE | re.M)
_OTHER_LINE: Final = re.compile(
    r"^[^\S\r\n]*(?!\s|user|dis|dia|allow)[^\r\n]+", re.IGNORECASE | re.M
)
"Lines of other records; the beginnings cover the misspellings that Protego takes."
_WORD: Final = re.compile(r"[\w-]*")


def opted_out(headers: Iterable[str]) -> list[str]:
    """Return the opt-out directives that ``X-Robots-Tag`` headers address to this fetcher.

    A header is a list of ``directive``, ``directive: value`` and ``robot: directive``; a robot's
    name holds for the directives after it, up to the next name or the end of the header.
    """
    found: set[str] = set()
    for header in headers:
        is_ours = True
        for element in header.lower().split(","):
            name, _, rest = element.partition(":")
            if _WORD.match(rest.strip())[0] in _DIRECTIVES:  # type: ignore[index]
                is_ours = name.strip() in (AGENT, "*")
                element = rest
            if is_ours and ":" not in element:
                found |= set(element.split()) & OPT_OUT
    return sorted(found)


def parse_robots(body: bytes) -> Protego:
    """Return the rules of a robots.txt.

    A group is for this fetcher only if it names the whole product token, in any case: Protego
    alone takes the beginning of a name as well. Other records, such as Crawl-delay, are left out:
    Protego lets them end a group's list of names, which RFC 9309 (2.2.4) forbids.
    """
    text = body[:MAX_ROBOTS_BYTES].decode("utf-8-sig", "replace")

    def exact(found: "re.Match[str]") -> str:
        name = found[2].strip().lower()
        if name != "*":
            name = AGENT if _WORD.match(name)[0] == AGENT else "another-robot"  # type: ignore[index]
        return f"{found[1]} {name}"

    return Protego.parse(_AGENT_LINE.sub(exact, _OTHER_LINE.sub("", text)))


class RobotsTxt:
    """The robots.txt files of sites, each read once a day."""

    def __init__(self, read: Callable[[URL], Awaitable[bytes]]) -> None:
        """Take a function that reads a robots.txt; no bytes stand for a site without rules.

        It raises :class:`FetchError` for a file that cannot be read now.
        """
        self._read = read
        self._rules: dict[URL, tuple[float, asyncio.Task[Protego]]] = {}

    async def check(self, url: URL) -> None:
        """Check that the site's robots.txt allows this fetcher to read a URL.

        Raises:
            FetchError: ``robots_txt``: it does not; any other reason: the file cannot be read.
        """
        site = url.origin()
        since, task = self._rules.get(site, (0.0, None))
        if task is None or time.monotonic() - since > _CACHED_S:
            if len(self._rules) > _MAX_SITES:
                self._rules.clear()
            task = asyncio.create_task(self._parsed(site))
            self._rules[site] = (time.monotonic(), task)
        try:
            rules = await asyncio.shield(task)
        except FetchError as error:
            if self._rules.get(site, (0.0, None))[1] is task:
                del self._rules[site]  # the next attempt reads it again
            detail = f"{site}/robots.txt: {error.detail}"
            raise FetchError(error.reason, detail, error.retry_after_s) from None
        # Servers resolve dot segments, so that a path is also checked without them.
        if not all(rules.can_fetch(str(each), AGENT) for each in (url, URL(str(url)))):
            raise FetchError("robots_txt", f"the site's robots.txt disallows {url}")

    async def _parsed(self, site: URL) -> Protego:
        return parse_robots(await self._read(site.join(URL("/robots.txt"))))
