"""The application: the page, its script and style, and one address for each panel.

A panel is asked by ``POST /panels/<number>`` with a JSON object and answers with one. What a user
can mend, such as a broken image, is an object with ``error``, one sentence; no path and no address
that a client sends is opened.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from errno import EACCES, EADDRINUSE
from pathlib import Path
from typing import Any, Final

import uvicorn
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from orchestration.errors import PipelineError
from pipelines.try_page.guards import MAX_BYTES, OwnPageOnly, TooLarge, json_of
from pipelines.try_page.panel import Panel, Unusable

logger = logging.getLogger(__name__)

_STATIC: Final = Path(__file__).parent / "static"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LAST_ANSWER_S: Final = 3
"Seconds that open requests have after Ctrl-C."
_ASSETS: Final = {"try.js": "text/javascript", "try.css": "text/css"}


def make_app(panels: Sequence[Panel], names: frozenset[str] = frozenset()) -> Starlette:
    """Return the application.

    Args:
        panels: what is shown, in order.
        names: names of this machine, beside localhost, by which it may be asked.
    """
    busy = threading.Lock()
    page = _render(panels)
    by_number = {str(number): panel for number, panel in enumerate(panels)}

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    async def asset(request: Request) -> Response:
        name = request.url.path.lstrip("/")
        content = (_STATIC / name).read_bytes()
        return Response(content, media_type=_ASSETS[name], headers=_HEADERS)

    async def ask(request: Request) -> Response:
        panel = by_number.get(request.path_params["number"])
        if panel is None:
            return _answer({"error": "there is no such panel"}, 404)
        try:
            values = await json_of(request)
            return await run_in_threadpool(_asked, panel, values, busy)
        except TooLarge as error:
            return _answer({"error": str(error)}, 413)
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        except (ClientDisconnect, asyncio.CancelledError):  # nobody waits any more
            return Response(status_code=503)

    return Starlette(
        routes=[
            Route("/", index),
            *(Route(f"/{name}", asset) for name in _ASSETS),
            Route("/panels/{number}", ask, methods=["POST"]),
        ],
        middleware=[Middleware(OwnPageOnly, names=names | {"localhost"})],
    )


def _asked(panel: Panel, values: dict[str, Any], busy: threading.Lock) -> Response:
    """Answer for a panel; one at a time, as each uses all cores."""
    try:
        with busy:
            return _answer(panel.answer(values))
    except Unusable as error:
        return _answer({"error": str(error)})
    except Exception:
        logger.exception("%s failed", panel.title)
        return _answer({"error": "the model failed; the terminal of beit3 try says why"}, 500)


def _answer(values: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(values, status, headers=_HEADERS)


def _render(panels: Sequence[Panel]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_STATIC),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        panels=panels, max_bytes=MAX_BYTES * 3 // 4 - (1 << 16)
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        PipelineError: the address cannot be used.
    """
    if not host.strip():  # the socket would listen on every address
        raise PipelineError("the host is empty; choose another --host, such as 127.0.0.1")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        of_port = isinstance(error, OverflowError) or (
            isinstance(error, OSError) and error.errno in (EADDRINUSE, EACCES)
        )
        option = "--port" if of_port else "--host"
        raise PipelineError(
            f"{host}:{port} cannot be used ({words}); choose another {option}"
        ) from None


def server_of(app: Starlette) -> uvicorn.Server:
    """Return the server of an application; ``run(sockets=[…])`` serves until Ctrl-C."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        # A client that has sent half of a request would hold up Ctrl-C.
        timeout_graceful_shutdown=_LAST_ANSWER_S,
    )
    return uvicorn.Server(config)
