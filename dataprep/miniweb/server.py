"""The HTTP server of the miniature web: the first part of a path selects the behavior.

``python -m dataprep.miniweb.server FOLDER`` serves on a free port of the loopback interface and
writes the port to standard output. It ends some time after its standard input closes: the parent
process may have been killed, and its remaining workers still need the server until they end.
"""

import argparse
import asyncio
import gzip
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from dataprep.miniweb.server_behaviors import PLACEHOLDER

_LINGER_S = 30.0
_DRIP_S = 0.05
_CHUNK_BYTES = 4096
_STATUS = {"missing": 404, "gone": 410, "forbidden": 403, "broken": 500, "always-busy": 429}
_SPECK_GIF = bytes.fromhex(
    "47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b"
)
_ROBOTS_TAGS = {
    "noindex": "noindex",
    "noimageindex": "noarchive, noimageindex",
    "other-robot": "otherbot: noai",
}
_TYPES = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".svg": "image/svg+xml",
}
"Content types by file name extension; all other files are JPEG."


class MiniWeb:
    """Answers requests from a folder of images."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.visits: Counter[str] = Counter()
        "Number of requests by path."

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        behavior, name = request.match_info["behavior"], request.match_info["name"]
        self.visits[request.path] += 1
        first = self.visits[request.path] == 1
        if behavior in _STATUS:
            return web.Response(status=_STATUS[behavior])
        if behavior == "html":
            return web.Response(text="<html><body>Sign in</body></html>", content_type="image/jpeg")
        if behavior == "busy-once" and first:
            return web.Response(status=429, headers={"Retry-After": "1"})
        if behavior == "flaky" and first:
            return web.Response(status=503)
        if behavior == "busy-for-hours":
            return web.Response(status=429, headers={"Retry-After": "3600"})
        if behavior.startswith("redirect"):
            left = int(behavior.partition("-")[2] or 1) - 1
            raise web.HTTPFound(f"/redirect-{left}/{name}" if left else f"/ok/{name}")
        if behavior == "loop":
            raise web.HTTPFound(request.path)
        if behavior == "slow":
            await asyncio.sleep(3600)
        if behavior == "reset":
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        if behavior == "speck":
            return web.Response(body=_SPECK_GIF, content_type="image/gif")
        if behavior == "optout":
            name = f"{PLACEHOLDER}.jpg"
            headers = {"X-Robots-Tag": "noai, noimageai"}
            return web.Response(
                body=(self.images / name).read_bytes(), content_type="image/jpeg", headers=headers
            )
        if behavior == PLACEHOLDER:
            name = f"{PLACEHOLDER}.jpg"
        return await self._image(request, behavior, name)

    async def _image(self, request: web.Request, behavior: str, name: str) -> web.StreamResponse:
        path = self.images / name
        if not path.is_file():
            return web.Response(status=404)
        data = path.read_bytes()
        kind = _TYPES.get(path.suffix, "image/jpeg")
        if behavior == "half-image":
            data = data[: len(data) // 2]
        if behavior == "truncated":
            return await _truncated(request, data)
        if behavior == "drip":
            return await _drip(request, data)
        if behavior == "chunked":
            return await _in_chunks(request, data, kind)
        headers = {}
        if behavior in _ROBOTS_TAGS:
            headers["X-Robots-Tag"] = _ROBOTS_TAGS[behavior]
        if behavior == "gzip":
            data, headers["Content-Encoding"] = gzip.compress(data), "gzip"
        return web.Response(body=data, content_type=kind, headers=headers)


async def _truncated(request: web.Request, data: bytes) -> web.StreamResponse:
    """Announce the full length, send half of the body and close the connection."""
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[: len(data) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _drip(request: web.Request, data: bytes) -> web.StreamResponse:
    """Send single bytes without long silences, and never send the last one."""
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the client waits no longer
        for i in range(len(data) - 1):
            await response.write(data[i : i + 1])
            await asyncio.sleep(_DRIP_S)
        await asyncio.sleep(3600)
    return response


async def _in_chunks(request: web.Request, data: bytes, kind: str) -> web.StreamResponse:
    """Send a body in chunks, without a Content-Length."""
    response = web.StreamResponse(headers={"Content-Type": kind})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for start in range(0, len(data), _CHUNK_BYTES):
        await response.write(data[start : start + _CHUNK_BYTES])
    await response.write_eof()
    return response


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Serve ``folder`` from another process while the block runs; yield the port."""
    command = [sys.executable, "-m", "dataprep.miniweb.server", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def _serve(folder: Path) -> None:
    application = web.Application()
    application.router.add_get("/{behavior}/{name}", MiniWeb(folder).handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0)
    await site.start()
    server = site._server
    assert isinstance(server, asyncio.Server)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    await ended.wait()
    await asyncio.sleep(_LINGER_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    asyncio.run(_serve(parser.parse_args().folder))
