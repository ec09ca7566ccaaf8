"""Host limits, retries, opt-outs and timeouts, against a server that records its requests."""

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from dataprep.addresses import AddressRules
from dataprep.fetch import Fetcher, FetchError, FetchRules
from dataprep.host_limiter import HostLimiter, HostRules

BODY = b"\xff\xd8\xff" + bytes(1000)


class Server:
    """Records the open requests and the times of requests, by host."""

    def __init__(self, answer: Callable[[web.Request, "Server"], Awaitable[web.StreamResponse]]):
        self.answer = answer
        self.open: Counter[str] = Counter()
        self.max_open: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        host = request.host.partition(":")[0]
        self.times.setdefault(host, []).append(time.monotonic())
        self.open[host] += 1
        self.max_open[host] = max(self.max_open[host], self.open[host])
        try:
            return await self.answer(request, self)
        finally:
            self.open[host] -= 1


async def ok(request: web.Request, _: Server) -> web.Response:
    await asyncio.sleep(0.02)
    return web.Response(body=BODY)


def fetch(urls, answer=ok, hosts: HostRules | None = None, waves: int = 1, **rules):
    """Fetch from a fresh server; return it and the reasons (or ``ok``) of the last wave."""
    server = Server(answer)
    settings = {"max_attempts": 1, "total_timeout_s": 5, "first_wait_s": 0.001, **rules}

    async def run() -> list[str]:
        application = web.Application()
        application.router.add_get("/{path:.*}", server.handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0, backlog=2000)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        connect = {"dead.test": "127.0.0.1:1", "*.test": f"127.0.0.1:{port}"}
        fetch_rules = FetchRules("tests", addresses=AddressRules(connect_to=connect), **settings)
        fetcher = Fetcher(fetch_rules, HostLimiter(hosts or HostRules(max_requests_per_second=1e6)))
        with ThreadPoolExecutor(1) as threads:
            for _ in range(waves):
                outcomes = await fetcher.fetch_all(urls, len, threads)
        await fetcher.close()
        await runner.cleanup()
        return [o.reason if isinstance(o, FetchError) else "ok" for o in outcomes]

    return server, asyncio.run(run())


def test_open_requests_per_host_stay_below_the_limit():
    urls = [f"http://{host}.test/{i}" for i in range(40) for host in "ab"]
    server, outcomes = fetch(
        urls, hosts=HostRules(max_concurrent_requests=3, max_requests_per_second=1e6)
    )
    assert set(outcomes) == {"ok"}
    assert server.max_open == {"a.test": 3, "b.test": 3}


def test_the_request_rate_per_host_stays_below_the_limit():
    server, _ = fetch(
        [f"http://a.test/{i}" for i in range(12)], hosts=HostRules(max_requests_per_second=20)
    )
    times = server.times["a.test"]
    assert times[-1] - times[0] >= 11 / 20 - 0.02


def test_a_redirect_counts_for_its_target_host():
    async def redirect(request: web.Request, server: Server) -> web.StreamResponse:
        if request.host.startswith("a."):
            raise web.HTTPFound(f"http://b.test{request.path}")
        return await ok(request, server)

    urls = [f"http://a.test/{i}" for i in range(20)]
    server, outcomes = fetch(
        urls, redirect, HostRules(max_concurrent_requests=2, max_requests_per_second=1e6)
    )
    assert set(outcomes) == {"ok"} and server.max_open["b.test"] == 2


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(status):
    async def busy(request: web.Request, server: Server) -> web.StreamResponse:
        if len(server.times["a.test"]) == 1:
            return web.Response(status=status, headers={"Retry-After": "1"})
        return await ok(request, server)

    server, outcomes = fetch(["http://a.test/1"], busy, max_attempts=2)
    first, second = server.times["a.test"]
    assert outcomes == ["ok"] and second - first >= 1


@pytest.mark.parametrize(("status", "requests"), [(403, 1), (404, 1), (410, 1), (500, 3), (429, 3)])
def test_only_transient_statuses_are_retried(status, requests):
    async def answer(request: web.Request, _: Server) -> web.StreamResponse:
        return web.Response(status=status)

    server, outcomes = fetch(["http://a.test/1"], answer, max_attempts=3)
    assert outcomes == [f"http_{status}"]
    assert len(server.times["a.test"]) == requests


def test_a_dead_host_is_paused_and_others_are_not():
    hosts = HostRules(
        max_concurrent_requests=1,
        max_requests_per_second=1e6,
        max_consecutive_failures=5,
        pause_s=60,
    )
    urls = [f"http://{host}.test/{i}" for i in range(30) for host in ("dead", "a")]
    _, outcomes = fetch(urls, hosts=hosts)
    assert Counter(outcomes) == {"ok": 30, "connection": 5, "host_unavailable": 25}


def test_a_probe_finds_a_host_that_recovered():
    back = asyncio.Event()

    async def answer(request: web.Request, server: Server) -> web.StreamResponse:
        if request.host.startswith("b."):  # keeps the first wave going until the pause is over
            await asyncio.sleep(0.4)
            back.set()
        elif not back.is_set():
            request.transport.close()
        return await ok(request, server)

    hosts = HostRules(
        max_concurrent_requests=1,
        max_requests_per_second=1e6,
        max_consecutive_failures=3,
        pause_s=0.2,
    )
    urls = [*(f"http://a.test/{i}" for i in range(20)), "http://b.test/"]
    server, outcomes = fetch(urls, answer, hosts, waves=2)
    assert outcomes == ["ok"] * 21
    # Three failures; aiohttp itself repeats a request whose kept connection turns out closed.
    assert len(server.times["a.test"]) <= 3 * 2 + 20


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("noai", "opt_out"),
        ("nofollow, NoImageIndex", "opt_out"),
        ("beit3-pipeline: noindex", "opt_out"),
        ("otherbot: noai", "ok"),
        ("nofollow, max-snippet: 20", "ok"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", "ok"),
    ],
)
def test_opt_out_headers_are_honored(header, expected):
    async def answer(request: web.Request, _: Server) -> web.StreamResponse:
        return web.Response(body=BODY, headers={"X-Robots-Tag": header})

    assert fetch(["http://a.test/1"], answer)[1] == [expected]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, ["robots_txt", "ok"]), (404, ["ok", "ok"]), (500, ["http_500"] * 2)],
)
def test_robots_txt_is_obeyed_if_the_rules_say_so(status, expected):
    async def answer(request: web.Request, _: Server) -> web.StreamResponse:
        if request.path == "/robots.txt":
            return web.Response(status=status, text="User-agent: *\nDisallow: /private/")
        return web.Response(body=BODY)

    urls = ["http://a.test/private/1", "http://a.test/open/1"]
    outcomes = fetch(urls, answer, obey_robots_txt=True)[1]
    assert outcomes == expected
    assert fetch(urls, answer)[1] == ["ok", "ok"]


def test_a_body_that_drips_ends_at_the_total_timeout():
    async def drip(request: web.Request, _: Server) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    started = time.monotonic()
    _, outcomes = fetch(["http://a.test/1"], drip, total_timeout_s=0.5, read_timeout_s=10)
    assert outcomes == ["timeout"] and time.monotonic() - started < 3


def test_waiting_for_the_limiter_does_not_count_as_the_server_s_time():
    async def slow(request: web.Request, _: Server) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return web.Response(body=BODY)

    urls = [f"http://a.test/{i}" for i in range(8)]  # the last one waits for 3.5 s
    _, outcomes = fetch(
        urls,
        slow,
        HostRules(max_concurrent_requests=1, max_requests_per_second=1e6),
        total_timeout_s=3,  # a busy machine may add seconds to an answer
    )
    assert outcomes == ["ok"] * 8


def test_memory_is_bounded_with_a_thousand_connections_open():
    size, everybody = 100_000, asyncio.Event()

    async def together(request: web.Request, server: Server) -> web.StreamResponse:
        if sum(server.open.values()) == 1000:
            everybody.set()
        await everybody.wait()
        return web.Response(body=bytes(size))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    urls = [f"http://h{i % 50}.test/{i}" for i in range(2000)]
    hosts = HostRules(max_concurrent_requests=100, max_requests_per_second=1e6)
    # The first request waits until the last of a thousand has been made, on a busy machine too.
    patient = {"connect_timeout_s": 120, "read_timeout_s": 120, "total_timeout_s": 240}
    server, outcomes = fetch(urls, together, hosts, max_connections=1000, **patient)
    assert set(outcomes) == {"ok"}
    assert sum(server.max_open.values()) >= 1000
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 3 * 1000 * size, grown  # the server's copies lie in this process as well
