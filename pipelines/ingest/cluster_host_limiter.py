"""The host limiter of a cluster: a limit per host holds over all workers that download.

Hosts are divided among *shards* by a hash of their names. Each shard is a Ray actor, a
:class:`ClusterHostLimiter`, around ``dataprep.host_limiter``. Each worker calls the shards that it
needs through a ``worker_limiter.WorkerLimiter``.

A worker joins with what it holds and what it waits for, and gets a session. Then it exchanges
messages with the shard from time to time: its new and its ended requests, for what was granted
and refused since. A worker that has been silent for a while counts as lost: its session ends,
its tickets are dropped, and those that it held are released. A worker whose session is unknown,
because it was silent too long or because the actor was restarted, joins again with its present
state. A restarted actor grants nothing until each living worker has had the time to do so. So
neither the death of a worker nor that of an actor loses a request or a permit or exceeds a limit.
"""

import asyncio
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import ray

from dataprep.host_limiter import Answer, HostPolicy, HostRules
from pipelines.ingest.host_runs import Ended, Ticket

_WORKERS_PER_SHARD: Final = 32
_MAX_SHARDS: Final = 8
"""Number of shards that any cluster needs: a call costs a shard more than the requests in it, and
the number of its calls is limited below; see ``benchmarks/host_limiter.py``."""
_CALLS_PER_S: Final = 500
"Number of calls a second that a shard asks of all its workers together: about half a core's work."
_MIN_PAUSE_S: Final = 0.05
"Shortest pause of a worker between two calls of a shard."
_WORKER_TIMEOUT_S: Final = 20.0
"Time without a call after which a worker counts as lost."
_handles: Final[list[Any]] = []


class Reply(NamedTuple):
    """Reply of a shard to a call of a worker."""

    granted: list[int]
    "Tickets that were granted."
    refused: list[int]
    "Tickets that were refused, because their host is paused."
    paused: list[str]
    "Hosts that were paused while the worker held tickets of theirs; it must not go on with them."
    pause_s: float
    "Time in seconds until the worker's next call."


@dataclass
class _Worker:
    session: str
    tickets: dict[int, tuple[int, str]] = field(default_factory=dict)
    "The worker's number and the host, by ticket of the policy, of the tickets that wait."
    held: Counter[str] = field(default_factory=Counter)
    granted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    last_seen: float = field(default_factory=time.monotonic)


class ClusterHostLimiter:
    """The actor: one :class:`HostPolicy`, and the tickets of each worker."""

    def __init__(
        self,
        rules: HostRules,
        worker_timeout_s: float = _WORKER_TIMEOUT_S,
        was_restarted: bool | None = None,
    ) -> None:
        """Start without a memory.

        Args:
            rules: limits of each host.
            worker_timeout_s: time without a call after which a worker counts as lost.
            was_restarted: whether workers may hold tickets of a former actor; None asks Ray.
        """
        if was_restarted is None:
            was_restarted = ray.get_runtime_context().was_current_actor_reconstructed
        now = time.monotonic()
        self.policy = HostPolicy(rules)
        self.worker_timeout_s = worker_timeout_s
        self.workers: dict[str, _Worker] = {}
        self._rests_until = now + worker_timeout_s if was_restarted else None
        self._next_check = now
        self._owners: dict[int, _Worker] = {}
        "Worker by ticket of the policy."
        self._last_ticket = 0
        self._timed: set[str] = set()
        "Hosts with a timer of their next decision."

    async def join(self, name: str, held: Mapping[str, int], waiting: Iterable[Ticket]) -> str:
        """Start a session of the worker ``name`` and end its former one; return the session.

        Args:
            name: of the worker.
            held: number of tickets that it holds, by host.
            waiting: tickets that it waits for.
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

    async def exchange(
        self, name: str, session: str, acquired: Sequence[Ticket], ended: Sequence[Ended]
    ) -> Reply | None:
        """Take a batch of messages of the worker ``name`` and return those for it.

        Returns None, and takes nothing, if the session has ended: the worker must join again.

        Args:
            name: of the worker.
            session: of the worker, from :meth:`join`.
            acquired: new tickets.
            ended: tickets that it held.
        """
        self._check_time()
        worker = self.workers.get(name)
        if worker is None or worker.session != session:
            return None
        worker.last_seen = time.monotonic()
        for host, answers, num_unused in ended:
            self._release(worker, host, answers, num_unused)
        for host in {host for host, _, _ in ended}:
            self._decide(host)
        self._queue(worker, acquired)
        pause_s = max(_MIN_PAUSE_S, len(self.workers) / _CALLS_PER_S)
        reply = Reply(worker.granted, worker.refused, list(worker.paused), pause_s)
        worker.granted, worker.refused, worker.paused = [], [], set()
        return reply

    def _check_time(self) -> None:
        """Remove lost workers, and end the rest after a restart."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + self.worker_timeout_s / 20
        if self._rests_until is not None and now >= self._rests_until:
            self._rests_until = None
            for host in self.policy.hosts():
                self._decide(host)
        oldest = now - self.worker_timeout_s
        for name in [name for name, each in self.workers.items() if each.last_seen < oldest]:
            self._remove(name)

    def _queue(self, worker: _Worker, tickets: Iterable[Ticket]) -> None:
        hosts = set()
        for number, host, num_requests in tickets:
            self._last_ticket += 1
            self._owners[self._last_ticket] = worker
            worker.tickets[self._last_ticket] = (number, host)
            self.policy.add(self._last_ticket, host, num_requests)
            hosts.add(host)
        for host in hosts:
            self._decide(host)

    def _decide(self, host: str) -> None:
        if self._rests_until is not None:
            return
        now = time.monotonic()
        decision = self.policy.decide(host, now)
        for ticket in decision.granted:
            worker = self._owners.pop(ticket)
            worker.granted.append(worker.tickets.pop(ticket)[0])
            worker.held[host] += 1
        for ticket in decision.refused:
            worker = self._owners.pop(ticket)
            worker.refused.append(worker.tickets.pop(ticket)[0])
        if decision.next_time is not None and host not in self._timed:
            self._timed.add(host)
            wait = max(decision.next_time - now, 0.001)
            asyncio.get_running_loop().call_later(wait, self._decide_again, host)

    def _decide_again(self, host: str) -> None:
        self._timed.discard(host)
        self._decide(host)

    def _release(
        self, worker: _Worker, host: str, answers: Sequence[Answer], num_unused: int = 0
    ) -> None:
        if worker.held[host] == 1:
            del worker.held[host]
        else:
            worker.held[host] -= 1
        now = time.monotonic()
        self.policy.release(host, answers, now, num_unused)
        if answers and self.policy.is_paused(host, now):
            for each in self.workers.values():
                if host in each.held:
                    each.paused.add(host)

    def _remove(self, name: str) -> None:
        """End a worker's session; its tickets go first, else a freed permit would go to one."""
        worker = self.workers.pop(name)
        hosts = set(worker.held) | {host for _, host in worker.tickets.values()}
        for ticket, (_, host) in worker.tickets.items():
            self.policy.cancel(ticket, host)
            del self._owners[ticket]
        for host in list(worker.held.elements()):
            self._release(worker, host, [])
        for host in hosts:
            self._decide(host)


@dataclass(frozen=True)
class LimiterShards:
    """Handles of the actors, and the rules that all of them follow; can be passed to workers."""

    handles: tuple[Any, ...]
    rules: HostRules

    def number_of(self, host: str) -> int:
        """Return the number of the shard that limits a host."""
        return zlib.crc32(host.encode()) % len(self.handles)


def num_shards(num_workers: int) -> int:
    """Return the number of shards for a number of workers."""
    return min(-(-num_workers // _WORKERS_PER_SHARD), _MAX_SHARDS)


def open_limiter(rules: HostRules, number: int) -> LimiterShards:
    """Return this driver's limiter, of a number of shards.

    The driver keeps the handles: Ray ends an actor without handles, but its name stays taken.
    """
    actor = ray.remote(ClusterHostLimiter)
    handles = tuple(
        actor.options(
            name=f"cluster_host_limiter_{i}_of_{number}",
            get_if_exists=True,
            num_cpus=0,
            scheduling_strategy="SPREAD",
            max_concurrency=10_000,
            max_restarts=-1,
        ).remote(rules)
        for i in range(number)
    )
    _handles.extend(handles)
    return LimiterShards(handles, rules)
