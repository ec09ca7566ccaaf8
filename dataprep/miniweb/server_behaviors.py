"""What the server of the miniature web does at a path, by the path's first part.

The lists of Conceptual Captions go through ``MISBEHAVIORS`` and ``DELAYS`` in this order, so that
their bytes stay what they are; whatever is new belongs to the zoo's two tables.
"""

from typing import Final

HOSTS: Final = ("images.miniweb.test", "cdn.miniweb.test", "static.miniweb.test")
PLACEHOLDER: Final = "placeholder"

MISBEHAVIORS: Final = {
    "missing": "http_404",
    "gone": "http_410",
    "forbidden": "http_403",
    "broken": "http_500",
    "always-busy": "http_429",
    "html": "not_an_image",
    "truncated": "truncated",
    "half-image": "undecodable",
    "slow": "timeout",
    "reset": "connection",
    "loop": "redirects",
    "optout": "opt_out",
    "dns": "dns",
    "speck": "too_small",
}
"What the server does at a path of that name, and the reason that a fetcher must give."

DELAYS: Final = ("redirect", "busy-once", "flaky")
"What the server does before it sends the image after all."

ZOO_MISBEHAVIORS: Final = {
    "drip": "timeout",
    "noindex": "opt_out",
    "noimageindex": "opt_out",
    "busy-for-hours": "http_429",
}
"As ``MISBEHAVIORS``, on the zoo's list."

ZOO_DETOURS: Final = ("redirect-3", "flaky", "other-robot", "gzip", "chunked")
"As ``DELAYS``, on the zoo's list; ``other-robot`` opts out for somebody else's robot."

ALONE: Final = frozenset({"drip", "busy-for-hours"})
"A fetcher may leave their host alone afterwards, so each such image has a host of its own."


def url_of(behavior: str, name: str, number: int) -> str:
    """Return the address of image ``number`` of a list."""
    host = HOSTS[number % len(HOSTS)]
    if behavior == "dns":
        host = f"gone-{number}.invalid"
    elif behavior in ALONE:
        host = f"{behavior}-{number}.miniweb.test"
    return f"http://{host}/{behavior}/{name}"
