"""Workers and shards of a host limiter in one event loop, without Ray between them."""

import asyncio
from collections import Counter, defaultdict
from types import SimpleNamespace

from ray.exceptions import ActorUnavailableError

from dataprep.host_limiter import Answer, HostRules
from pipelines.ingest.cluster_host_limiter import ClusterHostLimiter, LimiterShards
from pipelines.ingest.worker_limiter import WorkerLimiter

ONE_AT_A_TIME = HostRules(max_concurrent_requests=1, max_requests_per_second=1e6)
GOOD, BAD = Answer(reached=True), Answer(reached=False)


def open_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


class Handle:
    """The handle of an actor that can be restarted: its methods start at once."""

    def __init__(self, rules: HostRules, worker_timeout_s: float = 0.3) -> None:
        self.make = lambda was_restarted: ClusterHostLimiter(rules, worker_timeout_s, was_restarted)
        self.limiter = self.make(False)
        self.tasks: set[asyncio.Task] = set()
        self.calls = Counter[str]()
        self.heard = defaultdict(open_event)
        "By worker: whether what it sends and what is sent to it arrives."
        for name in ("join", "exchange"):
            setattr(self, name, SimpleNamespace(remote=self._call(name)))

    def _call(self, name: str):
        async def call(*args):
            await self.heard[args[0]].wait()
            limiter = self.limiter
            self.calls[name] += 1
            result = await getattr(limiter, name)(*args)
            await self.heard[args[0]].wait()
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
        self.limiter = self.make(True)


def run(rules: HostRules, scenario, num_workers: int = 2, num_shards: int = 1, **options) -> None:
    async def main() -> None:
        handles = tuple(Handle(rules, **options) for _ in range(num_shards))
        shards = LimiterShards(handles, rules)
        names = ("first", "second", "third", "fourth")[:num_workers]
        workers = [WorkerLimiter(shards, name) for name in names]
        await asyncio.wait_for(scenario(*handles, workers), 40)
        for worker in workers:
            worker.close()

    asyncio.run(main())


async def until(holds) -> None:
    """Wait until a condition holds; the time limit of the scenario ends a vain wait."""
    while not holds():
        await asyncio.sleep(0.005)


def fall_silent(worker: WorkerLimiter) -> None:
    """Hold a worker's messages back, as if its process were killed or stopped."""
    for handle in worker.shards.handles:
        handle.heard[worker.name].clear()


def come_back(worker: WorkerLimiter) -> None:
    for handle in worker.shards.handles:
        handle.heard[worker.name].set()
