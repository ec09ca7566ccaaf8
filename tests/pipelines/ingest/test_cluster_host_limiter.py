"""The gate of a cluster: what several workers ask of one desk, without Ray between them."""

import asyncio
from types import SimpleNamespace

import pytest

from dataprep.host_limiter import Answer, HostRules, HostUnavailable
from pipelines.ingest import cluster_host_limiter
from pipelines.ingest.cluster_host_limiter import ClusterGate, ClusterHostLimiter


def handle(desk: ClusterHostLimiter) -> SimpleNamespace:
    """What a worker holds of an actor: methods whose calls begin at once and can be awaited."""

    def method(function):
        return SimpleNamespace(remote=lambda *args: asyncio.ensure_future(function(*args)))

    return SimpleNamespace(tell=method(desk.tell), hear=method(desk.hear))


def run(rules: HostRules, scenario) -> None:
    async def main() -> None:
        desk = ClusterHostLimiter(rules)
        gates = [ClusterGate(handle(desk), name) for name in ("first", "second")]
        await asyncio.wait_for(scenario(desk, gates), 20)
        for gate in gates:
            gate.close()

    asyncio.run(main())


def test_workers_share_the_places_of_a_host():
    open_, most, done = 0, 0, 0

    async def visit(gate: ClusterGate, host: str) -> None:
        nonlocal open_, most, done
        await gate.acquire(host)
        if host == "a.org":
            open_ += 1
            most = max(most, open_)
        await asyncio.sleep(0.003)
        if host == "a.org":
            open_ -= 1
        gate.release(host, Answer(reached=True))
        done += 1

    async def scenario(_: ClusterHostLimiter, gates: list[ClusterGate]) -> None:
        visits = [(gate, host) for _ in range(30) for gate in gates for host in ("a.org", "b.org")]
        await asyncio.gather(*(visit(*each) for each in visits))

    run(HostRules(max_concurrent_requests=3, max_requests_per_second=1e6), scenario)
    assert done == 120 and most == 3


def test_a_host_that_fails_one_worker_is_left_alone_by_all():
    async def scenario(_: ClusterHostLimiter, gates: list[ClusterGate]) -> None:
        for _ in range(2):
            await gates[0].acquire("dead.org")
            gates[0].release("dead.org", Answer(reached=False))
        await asyncio.sleep(0.05)
        with pytest.raises(HostUnavailable):
            await gates[1].acquire("dead.org")

    run(HostRules(max_consecutive_failures=2, pause_s=60), scenario)


def test_what_a_dead_worker_held_is_freed(monkeypatch):
    async def scenario(desk: ClusterHostLimiter, gates: list[ClusterGate]) -> None:
        await gates[0].acquire("a.org")
        gates[0]._listening.cancel()  # it dies without leaving
        monkeypatch.setattr(cluster_host_limiter, "_SILENCE_S", 0.1)
        monkeypatch.setattr(cluster_host_limiter, "_LONGEST_WAIT_S", 0.05)
        await gates[1].acquire("a.org")
        assert list(desk.workers) == ["second"]

    monkeypatch.setattr(cluster_host_limiter, "_LONGEST_WAIT_S", 0.05)
    run(HostRules(max_concurrent_requests=1, max_requests_per_second=1e6), scenario)
