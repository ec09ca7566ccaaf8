"""The host limiter of a cluster: several workers of one limiter, without Ray between them."""

import asyncio
from types import SimpleNamespace

import pytest

from dataprep.host_limiter import Answer, HostRules, HostUnavailable
from pipelines.ingest import cluster_host_limiter
from pipelines.ingest.cluster_host_limiter import ClusterHostLimiter, WorkerLimiter


def handle(limiter: ClusterHostLimiter) -> SimpleNamespace:
    """Return an actor's handle: its methods start at once and return an awaitable."""

    def method(function):
        return SimpleNamespace(remote=lambda *args: asyncio.ensure_future(function(*args)))

    return SimpleNamespace(submit=method(limiter.submit), poll=method(limiter.poll))


def run(rules: HostRules, scenario) -> None:
    async def main() -> None:
        limiter = ClusterHostLimiter(rules)
        workers = [WorkerLimiter(handle(limiter), name) for name in ("first", "second")]
        await asyncio.wait_for(scenario(limiter, workers), 20)
        for worker in workers:
            worker.close()

    asyncio.run(main())


def test_all_workers_together_keep_the_limit_of_a_host():
    open_, most, done = 0, 0, 0

    async def visit(worker: WorkerLimiter, host: str) -> None:
        nonlocal open_, most, done
        await worker.acquire(host)
        if host == "a.org":
            open_ += 1
            most = max(most, open_)
        await asyncio.sleep(0.003)
        if host == "a.org":
            open_ -= 1
        worker.release(host, Answer(reached=True))
        done += 1

    async def scenario(_: ClusterHostLimiter, workers: list[WorkerLimiter]) -> None:
        visits = [
            (worker, host) for _ in range(30) for worker in workers for host in ("a.org", "b.org")
        ]
        await asyncio.gather(*(visit(*each) for each in visits))

    run(HostRules(max_concurrent_requests=3, max_requests_per_second=1e6), scenario)
    assert done == 120 and most == 3


def test_a_host_that_fails_one_worker_is_paused_for_all():
    async def scenario(_: ClusterHostLimiter, workers: list[WorkerLimiter]) -> None:
        for _ in range(2):
            await workers[0].acquire("dead.org")
            workers[0].release("dead.org", Answer(reached=False))
        await asyncio.sleep(0.05)
        with pytest.raises(HostUnavailable):
            await workers[1].acquire("dead.org")

    run(HostRules(max_consecutive_failures=2, pause_s=60), scenario)


def test_the_requests_of_a_dead_worker_are_released(monkeypatch):
    async def scenario(limiter: ClusterHostLimiter, workers: list[WorkerLimiter]) -> None:
        await workers[0].acquire("a.org")
        workers[0]._polling.cancel()  # the worker dies without a release
        monkeypatch.setattr(cluster_host_limiter, "_WORKER_TIMEOUT_S", 0.1)
        monkeypatch.setattr(cluster_host_limiter, "_POLL_S", 0.05)
        await workers[1].acquire("a.org")
        assert list(limiter.workers) == ["second"]

    monkeypatch.setattr(cluster_host_limiter, "_POLL_S", 0.05)
    run(HostRules(max_concurrent_requests=1, max_requests_per_second=1e6), scenario)
