"""The actor of a limiter's shard is killed during a download by several workers.

The server itself counts the open requests of each host.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import ray
from aiohttp import web

from dataprep.addresses import AddressRules
from dataprep.fetch import FetchRules
from dataprep.host_limiter import HostRules
from dataprep.images import ImageRules, StoredImage, encode_jpeg
from pipelines.ingest.cluster_host_limiter import ClusterHostLimiter, LimiterShards
from pipelines.ingest.fetch_engines import NativeEngine, worker_limiter

pytestmark = pytest.mark.slow

HOSTS, NUM_IMAGES, NUM_WORKERS, NUM_SHARDS = [f"h{i}.test" for i in range(10)], 500, 3, 3
RULES = HostRules(max_concurrent_requests=2, max_requests_per_second=1000)
WORKER_TIMEOUT_S = 8.0


class CountingServer:
    """Answers with an image after a moment, and counts open requests by host."""

    def __init__(self) -> None:
        self.jpeg = encode_jpeg(np.full((40, 40, 3), 120, np.uint8), 90)
        self.open, self.most, self.num_answered = Counter[str](), Counter[str](), 0
        self.seconds = dict.fromkeys(HOSTS, 0.05)

    async def answer(self, request: web.Request) -> web.Response:
        host = request.host.partition(":")[0]
        self.open[host] += 1
        self.most[host] = max(self.most[host], self.open[host])
        await asyncio.sleep(self.seconds[host])
        self.open[host] -= 1
        self.num_answered += 1
        return web.Response(body=self.jpeg, content_type="image/jpeg")


@contextmanager
def serving(server: CountingServer) -> Iterator[int]:
    """Serve in a thread of its own; yield the port."""
    loop = asyncio.new_event_loop()

    async def start() -> int:
        application = web.Application()
        application.router.add_get("/{name}", server.answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.fixture
def shards() -> Iterator[LimiterShards]:
    ray.shutdown()  # workflows of other tests leave their session open
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    actor = ray.remote(ClusterHostLimiter).options(num_cpus=0, max_restarts=-1)
    handles = tuple(actor.remote(RULES, WORKER_TIMEOUT_S) for _ in range(NUM_SHARDS))
    yield LimiterShards(handles, RULES)
    ray.shutdown()


def test_a_killed_shard_loses_no_row_and_exceeds_no_limit(shards):
    server = CountingServer()
    with serving(server) as port, ThreadPoolExecutor() as threads:
        addresses = AddressRules(allow_private=True, connect_to={"*.test": f"127.0.0.1:{port}"})
        rules = FetchRules("tests", addresses=addresses)
        images = ImageRules(32, 90, 8, 10**6)
        engines = [
            NativeEngine(rules, images, partial(worker_limiter, shards), num_threads=1)
            for _ in range(NUM_WORKERS)
        ]
        urls = [f"http://{HOSTS[i % len(HOSTS)]}/{i}" for i in range(NUM_IMAGES)]
        parts = [urls[i::NUM_WORKERS] for i in range(NUM_WORKERS)]
        work = [threads.submit(*each) for each in zip(engines, parts, strict=True)]
        while server.num_answered < 100:
            assert not all(each.done() for each in work)
            time.sleep(0.01)
        server.seconds[HOSTS[0]] = 5.0  # these requests are open while the actor starts again
        while server.open[HOSTS[0]] < RULES.max_concurrent_requests:
            time.sleep(0.01)
        time.sleep(0.2)
        ray.kill(shards.handles[shards.number_of(HOSTS[0])], no_restart=False)
        server.seconds[HOSTS[0]] = 0.05
        outcomes = [outcome for each in work for outcome in each.result(timeout=120)]
        for engine in engines:
            engine.close()
    assert len(outcomes) == NUM_IMAGES
    assert [each for each in outcomes if not isinstance(each, StoredImage)] == []
    assert set(server.most) == set(HOSTS)
    assert max(server.most.values()) == RULES.max_concurrent_requests
