"""Runs of requests, the rate of a host over all workers, pauses, and the shards of hosts."""

import asyncio
import time

import pytest

from dataprep.host_limiter import Answer, HostRules, HostUnavailable
from pipelines.ingest.worker_limiter import WorkerLimiter
from tests.pipelines.ingest.limiter_actors import BAD, GOOD, Handle, run, until


def test_requests_of_a_host_share_a_ticket_and_a_call():
    rules = HostRules(max_concurrent_requests=2, max_requests_per_second=1e6)

    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        async def visit(host: str) -> None:
            await workers[0].acquire(host)
            workers[0].release(host, GOOD)

        await asyncio.gather(*(visit(f"{i}.org") for _ in range(16) for i in range(100)))
        assert handle.calls["exchange"] <= 3

    run(rules, scenario, num_workers=1)


def test_the_rate_of_a_host_holds_for_all_workers_together():
    rules = HostRules(max_concurrent_requests=4, max_requests_per_second=80)

    async def scenario(_: Handle, workers: list[WorkerLimiter]) -> None:
        started = time.monotonic()

        async def visit(worker: WorkerLimiter) -> None:
            await worker.acquire("a.org")
            worker.release("a.org", GOOD)

        await asyncio.gather(*(visit(worker) for worker in workers for _ in range(20)))
        assert time.monotonic() - started >= 32 / 80  # the last run of eight may begin at once

    run(rules, scenario)


@pytest.mark.parametrize("answer", [Answer(reached=True, pause_s=30), BAD], ids=["busy", "dead"])
def test_a_pause_stops_the_runs_of_other_workers(answer):
    rules = HostRules(2, 1e6, max_consecutive_failures=1, pause_s=20)

    async def scenario(_: Handle, workers: list[WorkerLimiter]) -> None:
        first, second = workers
        requests = [asyncio.ensure_future(first.acquire("a.org")) for _ in range(4)]
        await until(lambda: sum(each.done() for each in requests) == 2)
        requests.append(asyncio.ensure_future(second.acquire("a.org")))
        first.release("a.org", answer)
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert sum(isinstance(each, HostUnavailable) for each in results) == 3

    run(rules, scenario)


def test_each_host_has_one_shard_and_a_worker_joins_those_that_it_needs():
    async def scenario(*args) -> None:
        *handles, (first, second) = args
        hosts = [f"h{i}.org" for i in range(64)]
        of = [first.shards.number_of(host) for host in hosts]
        assert set(of) == {0, 1, 2} and of == [second.shards.number_of(host) for host in hosts]
        await second.acquire(hosts[0])
        assert set(second.clients) == {of[0]}
        for host in hosts:
            await first.acquire(host)
        for number, handle in enumerate(handles):
            held = handle.limiter.workers["first"].held
            assert set(held) == {h for h, n in zip(hosts, of, strict=True) if n == number}

    run(HostRules(max_requests_per_second=1e6), scenario, num_shards=3)
