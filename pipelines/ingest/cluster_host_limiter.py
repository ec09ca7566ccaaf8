"""One host limiter for a whole cluster: limits per host hold over every worker that downloads.

:class:`ClusterHostLimiter` is a Ray actor around ``dataprep.host_limiter``. A worker's
:class:`ClusterGate` batches acquire and release calls and long-polls for grants. The limiter frees
what a worker held once the worker has been silent for a while.
"""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from dataprep.host_limiter import Answer, HostLimiter, HostRules, HostUnavailable

_NAME: Final = "cluster_host_limiter"
_BUNCH_S: Final = 0.005
_LONGEST_WAIT_S: Final = 5.0
_SILENCE_S: Final = 60.0
_kept: Final[list[Any]] = []


@dataclass
class _Worker:
    granted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    held: Counter[str] = field(default_factory=Counter)
    waiting: set["asyncio.Task[None]"] = field(default_factory=set)
    heard_at: float = field(default_factory=time.monotonic)


class ClusterHostLimiter:
    """The gate of all workers."""

    def __init__(self, rules: HostRules) -> None:
        self.gate = HostLimiter(rules)
        self.workers: dict[str, _Worker] = {}

    async def tell(
        self, name: str, asks: list[tuple[int, str]], leaves: list[tuple[str, Answer]]
    ) -> None:
        """Take what a worker asks for and what it is done with."""
        worker = self._worker(name)
        for host, answer in leaves:
            if worker.held[host] > 0:
                worker.held[host] -= 1
                self.gate.release(host, answer)
        for ticket, host in asks:
            task = asyncio.create_task(self._enter(worker, ticket, host))
            worker.waiting.add(task)
            task.add_done_callback(worker.waiting.discard)

    async def hear(self, name: str) -> tuple[list[int], list[int]]:
        """Return the tickets of a worker that were granted and refused; waits for some."""
        self._free_the_silent()
        worker = self._worker(name)
        with suppress(TimeoutError):
            await asyncio.wait_for(worker.news.wait(), _LONGEST_WAIT_S)
        worker.news.clear()
        news = worker.granted, worker.refused
        worker.granted, worker.refused = [], []
        return news

    async def _enter(self, worker: _Worker, ticket: int, host: str) -> None:
        try:
            await self.gate.acquire(host)
        except HostUnavailable:
            worker.refused.append(ticket)
        else:
            worker.held[host] += 1
            worker.granted.append(ticket)
        worker.news.set()

    def _worker(self, name: str) -> _Worker:
        worker = self.workers.setdefault(name, _Worker())
        worker.heard_at = time.monotonic()
        return worker

    def _free_the_silent(self) -> None:
        oldest = time.monotonic() - _SILENCE_S
        for name, worker in list(self.workers.items()):
            if worker.heard_at < oldest:
                del self.workers[name]
                for task in worker.waiting:
                    task.cancel()
                for host in worker.held.elements():
                    self.gate.release(host, Answer(reached=True))


def open_limiter(rules: HostRules) -> Any:
    """Return the desk of this driver's workflow, as a handle that workers can be given.

    The handle is kept: an actor that nobody holds ends, and a name would lead to it all the same.
    """
    actor = ray.remote(ClusterHostLimiter).options(
        name=_NAME, get_if_exists=True, num_cpus=0, max_concurrency=10_000
    )
    desk = actor.remote(rules)
    _kept.append(desk)
    return desk


class ClusterGate:
    """A worker's way to the desk; a :class:`dataprep.host_limiter.Limiter`."""

    def __init__(self, desk: Any, name: str) -> None:
        """Begin to listen; call it within the event loop of the fetcher."""
        self.desk, self.name = desk, name
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._asks: list[tuple[int, str]] = []
        self._leaves: list[tuple[str, Answer]] = []
        self._next = 0
        self._lost: Exception | None = None
        self._bunch: asyncio.TimerHandle | None = None
        self._listening = asyncio.create_task(self._listen())

    async def acquire(self, host: str) -> None:
        """See :class:`dataprep.host_limiter.Limiter`.

        Raises:
            ray.exceptions.RayError: the desk is gone.
        """
        if self._lost is not None:
            raise self._lost
        self._next += 1
        future = self._futures[self._next] = asyncio.get_running_loop().create_future()
        self._asks.append((self._next, host))
        self._send_soon()
        await future

    def release(self, host: str, answer: Answer) -> None:
        """See :class:`dataprep.host_limiter.Limiter`."""
        self._leaves.append((host, answer))
        self._send_soon()

    def close(self) -> None:
        """Send what waits, and stop listening."""
        self._send()
        self._listening.cancel()

    def _send_soon(self) -> None:
        if self._bunch is None:
            self._bunch = asyncio.get_running_loop().call_later(_BUNCH_S, self._send)

    def _send(self) -> None:
        self._bunch = None
        self.desk.tell.remote(self.name, self._asks, self._leaves)
        self._asks, self._leaves = [], []

    async def _listen(self) -> None:
        try:
            while True:
                granted, refused = await self.desk.hear.remote(self.name)
                for ticket in granted:
                    self._futures.pop(ticket).set_result(None)
                for ticket in refused:
                    self._futures.pop(ticket).set_exception(HostUnavailable())
        except ray.exceptions.RayError as error:
            self._lost = error
            for future in self._futures.values():
                future.set_exception(error)
