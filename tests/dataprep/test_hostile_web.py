"""A hostile web on the loopback interface: every row gets its reason, and memory stays flat.

The fetcher runs in a process of its own, whose memory is measured; the servers run in the test's.
"""

import asyncio
import gzip
import multiprocessing
import resource
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager

import pytest

from dataprep.addresses import AddressRules
from dataprep.fetch import Fetcher
from dataprep.fetch_rules import FetchRules
from dataprep.host_limiter import HostLimiter, HostRules
from dataprep.schemas import reject, rejects_table
from tests.dataprep.raw_server import IMAGE, RawServer, http, listening, reason, redirect

MAX_BYTES = 1 << 20
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
BOMB = gzip.compress(bytes(200 << 20), compresslevel=6, mtime=0)


def endless(start: bytes, piece: bytes, pause_s: float = 0):
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return send


BEHAVIORS = {
    "good": (http(), "ok"),
    "endless-body": (endless(OK + b"\r\n", b"x" * 65536), "too_large"),
    "huge-length": (http(b"x", "Content-Length: 99999999999", sized=False), "too_large"),
    "endless-line": (endless(OK + b"X: ", b"x" * 65536), "bad_response"),
    "endless-head": (endless(OK, b"X: " + b"x" * 6000 + b"\r\n"), "bad_response"),
    "endless-hints": (
        endless(b"", b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 99),
        "bad_response",
    ),
    "endless-trailers": (
        endless(CHUNKED + b"0\r\n", b"A: " + b"b" * 999 + b"\r\n"),
        "bad_response",
    ),
    "endless-extension": (endless(CHUNKED + b"3;", b"x" * 65536), "bad_response"),
    "dripping-head": (endless(OK + b"X: ", b"x", 0.05), "timeout"),
    "dripping-body": (endless(OK + b"\r\n", b"x", 0.05), "timeout"),
    "dripping-chunks": (endless(CHUNKED, b"1\r\nx\r\n", 0.05), "timeout"),
    "bomb": (http(BOMB, "Content-Encoding: gzip"), "too_large"),
    "double-bomb": (http(gzip.compress(BOMB), "Content-Encoding: gzip, gzip"), "too_large"),
    "loop": (redirect("/loop"), "redirects"),
    "long-redirects": (redirect("/" + "x" * 200_000), "ok"),
    "cookies": (
        redirect("/cookies", *(f"Set-Cookie: c{i}={'x' * 200}" for i in range(900))),
        "redirects",
    ),
    "surrogate": (redirect(b"http://b\xe5.test/x"), "bad_url"),
    "to-loopback": (redirect("http://[::ffff:127.0.0.1]:9/x"), "private_address"),
    "retry-after": (http(b"", "Retry-After: " + "9" * 400, status="429 No"), "http_429"),
    "strange-retry": (http(b"", "Retry-After: ²", status="503 No"), "http_503"),
    "tags": (http(IMAGE, "X-Robots-Tag: " + "a: b, " * 40_000), "ok"),
    "nothing": (b"", "connection"),
}
ROWS = [(name, f"http://{name}-{i}.test/{name}") for i in range(8) for name in BEHAVIORS]


@contextmanager
def serving(*servers: RawServer) -> Iterator[None]:
    """Serve from a thread while the block runs."""
    loop, ready, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(listening(server))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def fetch_measured(urls: list[str], port: int, num_waves: int) -> tuple[list[str], list, int]:
    """Return the first wave's reasons and details, and the growth of the peak memory after it."""
    rules = FetchRules(
        "tests",
        read_timeout_s=3,
        total_timeout_s=6,
        max_bytes=MAX_BYTES,
        max_attempts=1,
        max_connections=32,
        obey_robots_txt=True,
        addresses=AddressRules(connect_to={"*.test": f"127.0.0.1:{port}"}),
    )

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    async def run() -> tuple[list, int]:
        fetcher = Fetcher(rules, HostLimiter(HostRules(max_requests_per_second=1e6)))
        with ThreadPoolExecutor(2) as threads:
            outcomes = await fetcher.fetch_all(urls, bytes, threads)
            first = peak()
            for _ in range(num_waves - 1):
                await fetcher.fetch_all(urls, bytes, threads)
        await fetcher.close()
        return outcomes, peak() - first

    outcomes, growth = asyncio.run(run())
    details = [getattr(outcome, "detail", "") for outcome in outcomes]
    return [reason(outcome) for outcome in outcomes], details, growth


@pytest.mark.slow
def test_a_hostile_web_costs_its_own_rows_and_no_memory():
    answers = {f"/{name}": answer for name, (answer, _) in BEHAVIORS.items()}
    rules = b"User-agent: *\n" + b"Disallow: /*a*a*a*a*a*b$\n" * 100
    public, private = RawServer(answers | {"/robots.txt": http(rules)}), RawServer()
    with (
        serving(public, private),
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes,
    ):
        urls = [url for _, url in ROWS]
        reasons, details, growth = processes.submit(fetch_measured, urls, public.port, 3).result(
            timeout=200
        )
    found = Counter(zip((name for name, _ in ROWS), reasons, strict=True))
    assert found == {(name, expected): 8 for name, (_, expected) in BEHAVIORS.items()}
    assert rejects_table([reject("x", "y", "z", detail) for detail in details]).num_rows == 176
    assert growth < 64 << 20, f"{growth >> 20} MiB"
    assert private.heads == []
