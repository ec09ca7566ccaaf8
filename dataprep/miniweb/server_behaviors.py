"""Behaviors of the miniature web's server, selected by the first part of a path.

The Conceptual Captions lists cycle through ``MISBEHAVIORS`` and ``DELAYS`` in this order, and
their bytes are fixed by tests; new behaviors belong to the two tables for edge cases.
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
"Behaviors that never give a good image, and the reason that a fetcher must report."

DELAYS: Final = ("redirect", "busy-once", "flaky")
"Behaviors that give the image in the end."

EDGE_CASE_MISBEHAVIORS: Final = {
    "drip": "timeout",
    "noindex": "opt_out",
    "noimageindex": "opt_out",
    "busy-for-hours": "http_429",
}
"Like ``MISBEHAVIORS``, for the list of edge cases."

EDGE_CASE_DETOURS: Final = ("redirect-3", "flaky", "other-robot", "gzip", "chunked")
"Like ``DELAYS``, for the list of edge cases; ``other-robot`` opts out for another robot."

NEEDS_OWN_HOST: Final = frozenset({"drip", "busy-for-hours"})
"Behaviors after which a fetcher may pause the host, so each such image has its own host."


def url_of(behavior: str, name: str, number: int) -> str:
    """Return the URL of image ``number`` of a list."""
    host = HOSTS[number % len(HOSTS)]
    if behavior == "dns":
        host = f"gone-{number}.invalid"
    elif behavior in NEEDS_OWN_HOST:
        host = f"{behavior}-{number}.miniweb.test"
    return f"http://{host}/{behavior}/{name}"
