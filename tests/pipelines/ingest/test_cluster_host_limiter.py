"""The host limiter of a cluster: several workers of one limiter, without Ray between them.

``tests/end_to_end/test_killed_downloads.py`` kills and stops the processes of real downloads.
"""

import asyncio
import random
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnavailableError

from dataprep.host_limiter import Answer, HostLimiter, HostRules, HostUnavailable
from pipelines.ingest import worker_limiter
from pipelines.ingest.cluster_host_limiter import ClusterHostLimiter
from pipelines.ingest.worker_limiter import WorkerLimiter

ONE_AT_A_TIME = HostRules(max_concurrent_requests=1, max_requests_per_second=1e6)


class Handle:
    """The handle of an actor that can be restarted: its methods start at once."""

    def __init__(self, rules: HostRules, worker_timeout_s: float = 0.3) -> None:
        self.make = lambda: ClusterHostLimiter(rules, worker_timeout_s, poll_s=0.05)
        self.limiter = self.make()
        self.tasks: set[asyncio.Task] = set()
        for name in ("join", "submit", "poll"):
            setattr(self, name, SimpleNamespace(remote=self._call(name)))

    def _call(self, name: str):
        async def call(*args):
            limiter = self.limiter
            result = await getattr(limiter, name)(*args)
            if limiter is not self.limiter:
                raise ActorUnavailableError("restarted", b"0" * 16)
            return result

        def remote(*args):
            task = asyncio.ensure_future(call(*args))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return task

        return remote

    def restart(self) -> None:
        """Replace the actor by one without a memory; calls in flight fail."""
        self.limiter = self.make()


def run(rules: HostRules, scenario, num_workers: int = 2, **options) -> None:
    async def main() -> None:
        handle = Handle(rules, **options)
        names = ("first", "second", "third", "fourth")[:num_workers]
        workers = [WorkerLimiter(handle, name) for name in names]
        await asyncio.wait_for(scenario(handle, workers), 40)
        for worker in workers:
            worker.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch):
    monkeypatch.setattr(worker_limiter, "_RESTART_PAUSE_S", 0.02)


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

    async def scenario(_: Handle, workers: list[WorkerLimiter]) -> None:
        visits = [
            (worker, host) for _ in range(30) for worker in workers for host in ("a.org", "b.org")
        ]
        await asyncio.gather(*(visit(*each) for each in visits))

    run(HostRules(max_concurrent_requests=3, max_requests_per_second=1e6), scenario)
    assert done == 120 and most == 3


def test_a_host_that_fails_one_worker_is_paused_for_all():
    async def scenario(_: Handle, workers: list[WorkerLimiter]) -> None:
        for _ in range(2):
            await workers[0].acquire("dead.org")
            workers[0].release("dead.org", Answer(reached=False))
        await asyncio.sleep(0.05)
        with pytest.raises(HostUnavailable):
            await workers[1].acquire("dead.org")

    run(HostRules(max_consecutive_failures=2, pause_s=60), scenario)


async def fall_silent(worker: WorkerLimiter) -> None:
    """Stop a worker's polling, as if its process were killed or stopped."""
    worker._polling.cancel()
    await asyncio.sleep(0)


def test_the_requests_of_a_dead_worker_are_released():
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        await workers[0].acquire("a.org")
        await fall_silent(workers[0])
        await workers[1].acquire("a.org")
        assert list(handle.limiter.workers) == ["second"]

    run(ONE_AT_A_TIME, scenario)


@pytest.mark.parametrize("num_waiting", [1, 2, 7])
def test_a_dead_worker_s_tickets_do_not_take_the_permits_that_it_held(num_waiting):
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        dead, good = workers
        await dead.acquire("a.org")
        waiting = [asyncio.ensure_future(dead.acquire("a.org")) for _ in range(num_waiting)]
        await asyncio.sleep(0.05)
        behind = [asyncio.ensure_future(good.acquire("a.org")) for _ in range(3)]
        await asyncio.sleep(0.05)
        await fall_silent(dead)
        for each in behind:
            await each
            good.release("a.org", Answer(reached=True))
        assert not any(each.done() for each in waiting)
        await asyncio.sleep(0.05)
        assert handle.limiter.policy._hosts["a.org"].num_open == 0
        for each in waiting:
            each.cancel()

    run(ONE_AT_A_TIME, scenario)


@pytest.mark.parametrize("num_waiting", [0, 1, 3])
def test_a_worker_that_comes_back_asks_again_and_keeps_what_it_holds(num_waiting):
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        silent, other = workers
        await silent.acquire("a.org")
        waiting = [asyncio.ensure_future(silent.acquire("a.org")) for _ in range(num_waiting)]
        await asyncio.sleep(0.05)
        await fall_silent(silent)
        await other.acquire("a.org")  # the permit of the silent worker
        silent._polling = asyncio.create_task(silent._poll())
        await asyncio.sleep(0.3)
        assert handle.limiter.policy._hosts["a.org"].num_open == 2
        assert not any(each.done() for each in waiting)
        for worker in (silent, other):
            worker.release("a.org", Answer(reached=True))
        for each in waiting:
            await each
            silent.release("a.org", Answer(reached=True))
        await other.acquire("a.org")

    run(ONE_AT_A_TIME, scenario)


def test_a_restart_of_the_actor_costs_a_pause():
    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        first, second = workers
        await first.acquire("a.org")
        behind = asyncio.ensure_future(second.acquire("a.org"))
        await asyncio.sleep(0.05)
        handle.restart()
        await asyncio.sleep(0.3)
        assert not behind.done()  # the new actor knows what the first worker holds
        first.release("a.org", Answer(reached=True))
        await behind

    run(ONE_AT_A_TIME, scenario)


def test_an_actor_that_stays_away_fails_the_waiting_requests(monkeypatch):
    monkeypatch.setattr(worker_limiter, "_ACTOR_TIMEOUT_S", 0.1)

    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        def dead(*_):
            future = asyncio.get_running_loop().create_future()
            future.set_exception(ActorUnavailableError("gone", b"0" * 16))
            return future

        for name in ("join", "poll"):
            setattr(handle, name, SimpleNamespace(remote=dead))
        for _ in range(2):
            with pytest.raises(ActorUnavailableError):
                await workers[0].acquire("a.org")

    run(ONE_AT_A_TIME, scenario)


@pytest.mark.parametrize("seed", range(5))
def test_random_silences_and_restarts_lose_no_request_and_no_permit(seed):
    rng, num_hosts, done = random.Random(seed), 3, []

    async def visit(worker: WorkerLimiter, number: int) -> None:
        host = f"h{number % num_hosts}.org"
        await worker.acquire(host)
        await asyncio.sleep(rng.uniform(0, 0.01))
        worker.release(host, Answer(reached=True))
        done.append(number)

    async def disturb(handle: Handle, workers: list[WorkerLimiter]) -> None:
        while True:
            await asyncio.sleep(rng.uniform(0, 0.2))
            if rng.random() < 0.3:
                handle.restart()
                continue
            worker = rng.choice(workers)
            await fall_silent(worker)
            await asyncio.sleep(rng.uniform(0, 0.4))
            worker._polling = asyncio.create_task(worker._poll())

    async def scenario(handle: Handle, workers: list[WorkerLimiter]) -> None:
        disturbing = asyncio.create_task(disturb(handle, workers))
        visits = [visit(rng.choice(workers), number) for number in range(300)]
        await asyncio.gather(*visits)
        disturbing.cancel()
        await asyncio.sleep(0.5)
        assert sorted(done) == list(range(300))
        states = handle.limiter.policy._hosts.values()
        assert all(state.num_open == 0 and not state.waiting for state in states)

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
        limiter.release("a.org", Answer(reached=True))  # before the canceled tasks have run
        await asyncio.wait_for(limiter.acquire("a.org"), 2)

    asyncio.run(scenario())
