"""One host limiter for a whole cluster: a limit per host holds over all workers that download.

:class:`ClusterHostLimiter` is a Ray actor around ``dataprep.host_limiter``. A worker's
:class:`WorkerLimiter` batches acquire and release calls and long-polls for grants. A worker that
has not polled for a while is taken for dead, and the requests that it held are released.
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
_BATCH_S: Final = 0.005
"Time for which a worker collects calls before it sends them."
_POLL_S: Final = 5.0
"Longest time for which a poll waits."
_WORKER_TIMEOUT_S: Final = 60.0
"Time without a poll after which a worker is taken for dead."
_handles: Final[list[Any]] = []


@dataclass
class _Worker:
    granted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    held: Counter[str] = field(default_factory=Counter)
    waiting: set["asyncio.Task[None]"] = field(default_factory=set)
    last_seen: float = field(default_factory=time.monotonic)


class ClusterHostLimiter:
    """The actor: one :class:`HostLimiter`, and the tickets of each worker."""

    def __init__(self, rules: HostRules) -> None:
        self.limiter = HostLimiter(rules)
        self.workers: dict[str, _Worker] = {}

    async def submit(
        self, name: str, acquired: list[tuple[int, str]], released: list[tuple[str, Answer]]
    ) -> None:
        """Take a batch of calls of the worker ``name``.

        Args:
            name: of the worker.
            acquired: (ticket, host) of each request that wants to start.
            released: (host, answer) of each request that has ended.
        """
        worker = self._worker(name)
        for host, answer in released:
            if worker.held[host] > 0:
                worker.held[host] -= 1
                self.limiter.release(host, answer)
        for ticket, host in acquired:
            task = asyncio.create_task(self._acquire(worker, ticket, host))
            worker.waiting.add(task)
            task.add_done_callback(worker.waiting.discard)

    async def poll(self, name: str) -> tuple[list[int], list[int]]:
        """Return the tickets of the worker ``name`` that were granted and refused.

        Waits until there are some, but not longer than a poll may take.
        """
        self._remove_dead_workers()
        worker = self._worker(name)
        with suppress(TimeoutError):
            await asyncio.wait_for(worker.changed.wait(), _POLL_S)
        worker.changed.clear()
        tickets = worker.granted, worker.refused
        worker.granted, worker.refused = [], []
        return tickets

    async def _acquire(self, worker: _Worker, ticket: int, host: str) -> None:
        try:
            await self.limiter.acquire(host)
        except HostUnavailable:
            worker.refused.append(ticket)
        else:
            worker.held[host] += 1
            worker.granted.append(ticket)
        worker.changed.set()

    def _worker(self, name: str) -> _Worker:
        worker = self.workers.setdefault(name, _Worker())
        worker.last_seen = time.monotonic()
        return worker

    def _remove_dead_workers(self) -> None:
        oldest = time.monotonic() - _WORKER_TIMEOUT_S
        for name, worker in list(self.workers.items()):
            if worker.last_seen < oldest:
                del self.workers[name]
                for task in worker.waiting:
                    task.cancel()
                for host in worker.held.elements():
                    self.limiter.release(host, Answer(reached=True))


def open_limiter(rules: HostRules) -> Any:
    """Return a handle of this driver's limiter, which can be passed to workers.

    The driver keeps the handle: Ray ends an actor without handles, but its name stays taken.
    """
    actor = ray.remote(ClusterHostLimiter).options(
        name=_NAME, get_if_exists=True, num_cpus=0, max_concurrency=10_000
    )
    handle = actor.remote(rules)
    _handles.append(handle)
    return handle


class WorkerLimiter:
    """A worker's client of the cluster's limiter; implements ``dataprep.host_limiter.Limiter``."""

    def __init__(self, handle: Any, name: str) -> None:
        """Start to poll; call it within the event loop of the fetcher.

        Args:
            handle: of the :class:`ClusterHostLimiter` actor.
            name: of the worker, unique in the cluster.
        """
        self.handle, self.name = handle, name
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._acquired: list[tuple[int, str]] = []
        self._released: list[tuple[str, Answer]] = []
        self._last_ticket = 0
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._polling = asyncio.create_task(self._poll())

    async def acquire(self, host: str) -> None:
        """Wait until a request to the host is allowed.

        Raises:
            HostUnavailable: the host is paused.
            ray.exceptions.RayError: the actor has died.
        """
        if self._error is not None:
            raise self._error
        self._last_ticket += 1
        future = asyncio.get_running_loop().create_future()
        self._futures[self._last_ticket] = future
        self._acquired.append((self._last_ticket, host))
        self._send_soon()
        await future

    def release(self, host: str, answer: Answer) -> None:
        """Report the result of a request that was allowed."""
        self._released.append((host, answer))
        self._send_soon()

    def close(self) -> None:
        """Send the calls that wait, and stop polling."""
        self._send()
        self._polling.cancel()

    def _send_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BATCH_S, self._send)

    def _send(self) -> None:
        self._timer = None
        self.handle.submit.remote(self.name, self._acquired, self._released)
        self._acquired, self._released = [], []

    async def _poll(self) -> None:
        try:
            while True:
                granted, refused = await self.handle.poll.remote(self.name)
                for ticket in granted:
                    self._futures.pop(ticket).set_result(None)
                for ticket in refused:
                    self._futures.pop(ticket).set_exception(HostUnavailable())
        except ray.exceptions.RayError as error:
            self._error = error
            for future in self._futures.values():
                future.set_exception(error)
