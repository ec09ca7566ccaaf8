"""One host limiter for a whole cluster: a limit per host holds over all workers that download.

:class:`ClusterHostLimiter` is a Ray actor around ``dataprep.host_limiter``. A worker's
:class:`WorkerLimiter` batches acquire and release calls and long-polls for grants.

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
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import ray
from ray.exceptions import RayActorError, RayError

from dataprep.host_limiter import Answer, HostPolicy, HostRules, HostUnavailable

_NAME: Final = "cluster_host_limiter"
_BATCH_S: Final = 0.005
"Time for which a worker collects calls before it sends them."
_POLL_S: Final = 5.0
"Longest time for which a poll waits."
_WORKER_TIMEOUT_S: Final = 20.0
"Time without a poll after which a worker is taken for dead."
_RESTART_PAUSE_S: Final = 0.5
"Pause before a worker calls an actor again that did not answer."
_ACTOR_TIMEOUT_S: Final = 180.0
"Time without an answer of the actor after which a worker gives up."
_handles: Final[list[Any]] = []

Tickets = tuple[list[int], list[int]]
"Tickets of a worker that were granted, and those that were refused."


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

    async def poll(self, name: str, session: str) -> Tickets | None:
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


class WorkerLimiter:
    """A worker's client of the cluster's limiter; implements ``dataprep.host_limiter.Limiter``."""

    def __init__(self, handle: Any, name: str) -> None:
        """Join and start to poll; call it within the event loop of the fetcher.

        Args:
            handle: of the :class:`ClusterHostLimiter` actor.
            name: of the worker, unique in the cluster.
        """
        self.handle, self.name = handle, name
        self._session: str | None = None
        self._waiting: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._held: Counter[str] = Counter()
        self._acquired: list[tuple[int, str]] = []
        self._released: list[tuple[str, Answer]] = []
        self._last_ticket = 0
        self._error: RayError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Future[None]] = set()
        self._polling = asyncio.create_task(self._poll())

    async def acquire(self, host: str) -> None:
        """Wait until a request to the host is allowed.

        Raises:
            HostUnavailable: the host is paused.
            ray.exceptions.RayError: the actor has died and does not come back.
        """
        if self._error is not None:
            raise self._error
        self._last_ticket += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._last_ticket] = (host, future)
        self._acquired.append((self._last_ticket, host))
        self._send_soon()
        await future

    def release(self, host: str, answer: Answer) -> None:
        """Report the result of a request that was allowed."""
        self._held[host] -= 1
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
        if self._session is not None:
            call = self.handle.submit.remote(
                self.name, self._session, self._acquired, self._released
            )
            sending = asyncio.ensure_future(self._delivered(call))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
            self._acquired, self._released = [], []

    async def _delivered(self, call: Awaitable[None]) -> None:
        """End the session if a batch of calls did not arrive: the next one starts with them."""
        try:
            await call
        except RayError:
            self._session = None

    async def _poll(self) -> None:
        last_answer = time.monotonic()
        while True:
            try:
                if self._session is None:
                    await self._join()
                tickets = await self.handle.poll.remote(self.name, self._session)
                last_answer = time.monotonic()
            except RayActorError as error:  # Ray restarts the actor, without its memory
                self._session = None
                if time.monotonic() - last_answer > _ACTOR_TIMEOUT_S:
                    self._give_up(error)
                    return
                await asyncio.sleep(_RESTART_PAUSE_S)
            except RayError as error:
                self._give_up(error)
                return
            else:
                if tickets is None:
                    self._session = None
                else:
                    self._hand_out(tickets)

    async def _join(self) -> None:
        """Start a session with the present state, which makes the calls in the buffers obsolete."""
        waiting = [(ticket, host) for ticket, (host, _) in self._waiting.items()]
        held = {host: number for host, number in self._held.items() if number}
        self._acquired, self._released = [], []
        self._session = await self.handle.join.remote(self.name, held, waiting)
        if self._acquired or self._released:
            self._send_soon()

    def _hand_out(self, tickets: Tickets) -> None:
        granted, refused = tickets
        for ticket in granted:
            host, future = self._waiting.pop(ticket)
            self._held[host] += 1
            if future.done():  # its caller was canceled
                self.release(host, Answer(reached=True))
            else:
                future.set_result(None)
        for ticket in refused:
            _, future = self._waiting.pop(ticket)
            if not future.done():
                future.set_exception(HostUnavailable())

    def _give_up(self, error: RayError) -> None:
        self._error = error
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
