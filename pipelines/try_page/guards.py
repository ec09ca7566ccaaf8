"""Who may ask a local server, and how much may be sent to it.

A page that the user visits elsewhere can send requests to a server on this machine. It cannot read
this server's pages under their own name, so a request must name this machine, by address or as
localhost: a foreign name that was made to point here (DNS rebinding) is refused. A request that
another page sends carries that page's ``Origin``, which must be this server's.
"""

import ipaddress
import json
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BYTES: Final = 32 << 20
"Largest request. An image in it takes four thirds of its bytes."
_JSON: Final = "application/json"


class TooLarge(ValueError):
    """A request has more bytes than may be sent."""


class OwnPageOnly:
    """Refuses requests that do not come from a page of this server."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        """Wrap an application.

        Args:
            app: the application.
            names: names of this machine that a request may have beside its addresses.
        """
        self.app, self.names = app, frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http":
            headers = Request(scope).headers
            host, origin = headers.get("host", ""), headers.get("origin")
            if not self.is_own(host) or origin not in (None, f"http://{host}"):
                refusal = PlainTextResponse("this address is not served here\n", 403)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def is_own(self, host: str) -> bool:
        """Return whether a header ``Host`` names this machine by address or by a known name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True


async def json_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that was sent.

    Raises:
        TooLarge: it has more than ``MAX_BYTES``.
        ValueError: it is no JSON object, or is not declared as JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
        raise ValueError(f"expected a body of type {_JSON}")
    blocks, size = [], 0
    async for block in request.stream():
        size += len(block)
        if size > MAX_BYTES:
            raise TooLarge(f"more than {MAX_BYTES >> 20} MiB were sent")
        blocks.append(block)
    try:
        values = json.loads(b"".join(blocks))
    except (ValueError, RecursionError):
        raise ValueError("expected a JSON object") from None
    if not isinstance(values, dict):
        raise ValueError("expected a JSON object")
    return values
