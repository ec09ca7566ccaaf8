"""One host limiter for a whole cluster: a limit per host holds over all workers that download.

:class:`ClusterHostLimiter` is a Ray actor around ``dataprep.host_limiter``. Each
worker calls it through a ``worker_limiter.WorkerLimiter``.

A worker joins with what it holds and what it waits for, and gets a session. A worker that has not
polled for a while is taken for dead: its session ends, its tickets are dropped, and the requests
that it held are released. A worker whose session is unknown, because it was silent too long or
because the actor was restarted, joins again with its present state. So neither the death of a
worker nor that of the actor loses a request or a permit.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from dataprep.host_limiter import Answer, HostPolicy, HostRules

_NAME: Final = "cluster_host_limiter"
_POLL_S: Final = 5.0
"Longest time for which a poll waits."
_WORKER_TIMEOUT_S: Final = 20.0
"Time without a poll after which a worker is taken for dead."
_handles: Final[list[Any]] = []


@dataclass
class _Worker:
    session: str
    tickets: dict[int, str] = field(default_factory=dict)
    "Host by ticket of the policy, of the tickets that wait."
    held: Counter[str] = field(default_factory=Counter)
    granted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    last_seen: float = field(default_factory=time.monotonic)


class ClusterHostLimiter:
    """The actor: one :class:`HostPolicy`, and the tickets of each worker."""

    def __init__(
        self, rules: HostRules, worker_timeout_s: float = _WORKER_TIMEOUT_S, poll_s: float = _POLL_S
    ) -> None:
        self.policy = HostPolicy(rules)
        self.worker_timeout_s, self.poll_s = worker_timeout_s, poll_s
        self.workers: dict[str, _Worker] = {}
        self._owners: dict[int, tuple[_Worker, int]] = {}
        "Worker and the worker's ticket, by ticket of the policy."
        self._last_ticket = 0

    async def join(
        self, name: str, held: Mapping[str, int], waiting: Iterable[tuple[int, str]]
    ) -> str:
        """Start a session of the worker ``name`` and end its former one; return the session.

        Args:
            name: of the worker.
            held: number of open requests by host.
            waiting: (ticket, host) of each request that wants to start.
        """
        if name in self.workers:
            self._remove(name)
        worker = self.workers[name] = _Worker(uuid.uuid4().hex)
        for host, number in held.items():
            worker.held[host] = number
            for _ in range(number):
                self.policy.restore(host)
        self._queue(worker, waiting)
        return worker.session

    async def submit(
        self,
        name: str,
        session: str,
        acquired: list[tuple[int, str]],
        released: list[tuple[str, Answer]],
    ) -> None:
        """Take a batch of calls of the worker ``name``; those of an ended session are dropped.

        Args:
            name: of the worker.
            session: of the worker, from :meth:`join`.
            acquired: (ticket, host) of each request that wants to start.
            released: (host, answer) of each request that has ended.
        """
        worker = self._worker(name, session)
        if worker is None:
            return
        for host, answer in released:
            if worker.held[host] > 0:
                self._release(worker, host, answer)
                self._decide(host)
        self._queue(worker, acquired)

    async def poll(self, name: str, session: str) -> tuple[list[int], list[int]] | None:
        """Return the tickets of the worker ``name`` that were granted and refused.

        Waits until there are some, but not longer than a poll may take. Returns None if the session
        has ended: the worker must join again.
        """
        self._remove_dead_workers()
        worker = self._worker(name, session)
        if worker is None:
            return None
        with suppress(TimeoutError):
            await asyncio.wait_for(worker.changed.wait(), self.poll_s)
        if self.workers.get(name) is not worker:
            return None
        worker.changed.clear()
        tickets = worker.granted, worker.refused
        worker.granted, worker.refused = [], []
        return tickets

    def _worker(self, name: str, session: str) -> _Worker | None:
        worker = self.workers.get(name)
        if worker is None or worker.session != session:
            return None
        worker.last_seen = time.monotonic()
        return worker

    def _queue(self, worker: _Worker, tickets: Iterable[tuple[int, str]]) -> None:
        hosts = set()
        for ticket, host in tickets:
            self._last_ticket += 1
            self._owners[self._last_ticket] = (worker, ticket)
            worker.tickets[self._last_ticket] = host
            self.policy.add(self._last_ticket, host)
            hosts.add(host)
        for host in hosts:
            self._decide(host)

    def _decide(self, host: str) -> None:
        now = time.monotonic()
        decision = self.policy.decide(host, now)
        for ticket in decision.granted:
            worker, its_ticket = self._owners.pop(ticket)
            worker.held[worker.tickets.pop(ticket)] += 1
            worker.granted.append(its_ticket)
            worker.changed.set()
        for ticket in decision.refused:
            worker, its_ticket = self._owners.pop(ticket)
            del worker.tickets[ticket]
            worker.refused.append(its_ticket)
            worker.changed.set()
        if decision.next_time is not None:
            wait = max(decision.next_time - now, 0.001)
            asyncio.get_running_loop().call_later(wait, self._decide, host)

    def _release(self, worker: _Worker, host: str, answer: Answer) -> None:
        worker.held[host] -= 1
        self.policy.release(host, answer, time.monotonic())

    def _remove_dead_workers(self) -> None:
        oldest = time.monotonic() - self.worker_timeout_s
        for name in [name for name, each in self.workers.items() if each.last_seen < oldest]:
            self._remove(name)

    def _remove(self, name: str) -> None:
        """End a worker's session; its tickets go first, else a freed permit would go to one."""
        worker = self.workers.pop(name)
        for ticket, host in worker.tickets.items():
            self.policy.cancel(ticket, host)
            del self._owners[ticket]
        hosts = set(worker.held) | set(worker.tickets.values())
        for host in list(worker.held.elements()):
            self._release(worker, host, Answer(reached=True))
        for host in hosts:
            self._decide(host)
        worker.changed.set()


def open_limiter(rules: HostRules) -> Any:
    """Return a handle of this driver's limiter, which can be passed to workers.

    The driver keeps the handle: Ray ends an actor without handles, but its name stays taken.
    """
    actor = ray.remote(ClusterHostLimiter).options(
        name=_NAME, get_if_exists=True, num_cpus=0, max_concurrency=10_000, max_restarts=-1
    )
    handle = actor.remote(rules)
    _handles.append(handle)
    return handle
