"""The host limiter of a cluster: several workers of some shards, without Ray between them.

``test_killed_shards.py`` kills the actor of a shard during a download, and
``tests/end_to_end/test_lost_workers.py`` kills and stops the processes of real downloads.
"""

import asyncio
import random
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnavailableError

from dataprep.host_limiter import HostLimiter, HostRules, HostUnavailable
from pipelines.ingest import worker_limiter
from pipelines.ingest.worker_limiter import WorkerLimiter
from tests.pipelines.ingest.limiter_actors import (
    BAD,
    GOOD,
    ONE_AT_A_TIME,
    Handle,
    come_back,
    fall_silent,
    run,
    until,
)


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch):
    monkeypatch.setattr(worker_limiter, "_RESTART_PAUSE_S", 0.02)
    monkeypatch.setattr(worker_limiter, "_HEARTBEAT_S", 0.05)


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
        worker.release(host, GOOD)
        done += 1

    async def scenario(_: Handle, workers: list[WorkerLimiter]) -> None:
        visits = [
            (worker, host) for _ in range(30) for worker in workers for host in ("a.org", "b.org")
        ]
        await asyncio.gather(*(visit(*each) for each in visits))

    run(HostRules(max_concurrent_requests=3, max_requests_per_second=1e6), scenario)
    assert done == 120 and most == 3


def test_a_host_that_fails_one_worker_is_paused_for_all():
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        for _ in range(2):
            await workers[0].acquire("dead.org")
            workers[0].release("dead.org", BAD)
        await until(lambda: handle.limiter.policy.is_paused("dead.org", time.monotonic()))
        with pytest.raises(HostUnavailable):
            await workers[1].acquire("dead.org")

    run(HostRules(max_consecutive_failures=2, pause_s=60), scenario)


def test_the_requests_of_a_dead_worker_are_released():
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        await workers[0].acquire("a.org")
        fall_silent(workers[0])
        await workers[1].acquire("a.org")
        assert list(handle.limiter.workers) == ["second"]

    run(ONE_AT_A_TIME, scenario)


@pytest.mark.parametrize("num_waiting", [1, 2, 7])
def test_a_dead_worker_s_tickets_do_not_take_the_permits_that_it_held(num_waiting):
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        dead, good = workers
        await dead.acquire("a.org")
        limiter = handle.limiter
        waiting = [asyncio.ensure_future(dead.acquire("a.org")) for _ in range(num_waiting)]
        await until(lambda: limiter.workers["first"].tickets)
        behind = [asyncio.ensure_future(good.acquire("a.org")) for _ in range(3)]
        await until(lambda: "second" in limiter.workers and limiter.workers["second"].tickets)
        fall_silent(dead)
        for each in behind:
            await each
            good.release("a.org", GOOD)
        assert not any(each.done() for each in waiting)
        await until(lambda: handle.limiter.policy._hosts["a.org"].num_open == 0)
        for each in waiting:
            each.cancel()

    run(ONE_AT_A_TIME, scenario)


@pytest.mark.parametrize("num_waiting", [0, 1, 3])
def test_a_worker_that_comes_back_asks_again_and_keeps_what_it_holds(num_waiting):
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        silent, other = workers
        await silent.acquire("a.org")
        waiting = [asyncio.ensure_future(silent.acquire("a.org")) for _ in range(num_waiting)]
        await until(lambda: handle.limiter.workers["first"].tickets or not num_waiting)
        fall_silent(silent)
        await other.acquire("a.org")  # the permit of the silent worker
        come_back(silent)
        await until(lambda: handle.limiter.policy._hosts["a.org"].num_open == 2)
        assert not any(each.done() for each in waiting)
        for worker in (silent, other):
            worker.release("a.org", GOOD)
        for each in waiting:
            await each
            silent.release("a.org", GOOD)
        await other.acquire("a.org")

    run(ONE_AT_A_TIME, scenario)


def test_a_restart_of_the_actor_costs_a_pause():
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        first, second = workers
        await first.acquire("a.org")
        behind = asyncio.ensure_future(second.acquire("a.org"))
        await until(lambda: "second" in handle.limiter.workers)
        handle.restart()
        await asyncio.sleep(0.5)
        assert not behind.done()  # the new actor knows what the first worker holds
        first.release("a.org", GOOD)
        await behind

    run(ONE_AT_A_TIME, scenario)


def test_a_restarted_actor_waits_for_workers_that_join_late():
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        first, second = workers
        await first.acquire("a.org")
        behind = asyncio.ensure_future(second.acquire("a.org"))
        await until(lambda: "second" in handle.limiter.workers)
        fall_silent(first)
        handle.restart()
        await until(lambda: list(handle.limiter.workers) == ["second"])
        come_back(first)
        await asyncio.sleep(1)
        assert not behind.done()
        first.release("a.org", GOOD)
        await behind

    run(ONE_AT_A_TIME, scenario, worker_timeout_s=0.6)


@pytest.mark.parametrize("error", [ActorUnavailableError("gone", b"0" * 16), KeyError("a fault")])
def test_an_actor_that_stays_away_or_a_fault_fails_the_waiting_requests(monkeypatch, error):
    monkeypatch.setattr(worker_limiter, "_ACTOR_TIMEOUT_S", 0.1)

    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        def dead(*_):
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            return future

        for name in ("join", "exchange"):
            setattr(handle, name, SimpleNamespace(remote=dead))
        for _ in range(2):
            with pytest.raises(type(error)):
                await workers[0].acquire("a.org")

    run(ONE_AT_A_TIME, scenario)


@pytest.mark.parametrize("seed", range(5))
def test_random_silences_and_restarts_lose_no_request_and_no_permit(seed):
    rng, num_hosts, done = random.Random(seed), 3, []

    async def visit(worker: WorkerLimiter, number: int) -> None:
        host = f"h{number % num_hosts}.org"
        await worker.acquire(host)
        await asyncio.sleep(rng.uniform(0, 0.01))
        worker.release(host, GOOD)
        done.append(number)

    async def disturb(handle: Handle, workers: list[WorkerLimiter]) -> None:
        while True:
            await asyncio.sleep(rng.uniform(0, 0.2))
            if rng.random() < 0.3:
                handle.restart()
                continue
            worker = rng.choice(workers)
            fall_silent(worker)
            await asyncio.sleep(rng.uniform(0, 0.4))
            come_back(worker)

    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        disturbing = asyncio.create_task(disturb(handle, workers))
        visits = [visit(rng.choice(workers), number) for number in range(300)]
        await asyncio.gather(*visits)
        disturbing.cancel()
        assert sorted(done) == list(range(300))
        for worker in workers:
            come_back(worker)
        states = handle.limiter.policy._hosts
        await until(lambda: not any(each.num_open or each.waiting for each in states.values()))

    rules = HostRules(max_concurrent_requests=2, max_requests_per_second=1e6)
    run(rules, scenario, num_workers=3, worker_timeout_s=0.2)


@pytest.mark.parametrize("num_canceled", [1, 2, 5])
def test_canceled_requests_of_one_event_loop_free_their_permits(num_canceled):
    async def scenario() -> None:
        limiter = HostLimiter(ONE_AT_A_TIME)
        await limiter.acquire("a.org")
        canceled = [asyncio.ensure_future(limiter.acquire("a.org")) for _ in range(num_canceled)]
        await asyncio.sleep(0)
        for each in canceled:
            each.cancel()
        limiter.release("a.org", GOOD)  # before the canceled tasks have run
        await asyncio.wait_for(limiter.acquire("a.org"), 2)

    asyncio.run(scenario())
