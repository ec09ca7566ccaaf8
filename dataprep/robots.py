"""What a site says to robots: the X-Robots-Tag header and robots.txt (RFC 9309)."""

from collections.abc import Iterable
from typing import Final
from urllib.robotparser import RobotFileParser

AGENT: Final = "beit3-pipeline"
"Product token by which a site can address this fetcher."
OPT_OUT: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex"})


def opted_out(headers: Iterable[str]) -> list[str]:
    """Return the opt-out directives that ``X-Robots-Tag`` headers address to this fetcher.

    A header is ``directive, directive, …``, behind ``robot:`` where it is meant for one robot.
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
    """Return the rules of a robots.txt: all is allowed where there is none, nothing on 5xx."""
    rules = RobotFileParser()
    nothing = ["User-agent: *", "Disallow: /"]
    rules.parse(text.splitlines() if status == 200 else nothing if status >= 500 else [])
    return rules
