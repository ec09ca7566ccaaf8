"""Requests of a worker to the hosts of one shard of the limiter, gathered into runs.

Requests to one host that come at the same time are gathered into *runs* of a few, so that as many
runs as the host allows open requests divide them. A run waits for the shard as one ticket. Once it
is granted, its requests start one after the other, spaced by the host's rate. It ends early where a
request was not answered or the host asked for a pause; its other requests then wait anew.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dataprep.host_limiter import Answer, HostRules, HostUnavailable

_MAX_RUN: Final = 8
"Largest number of requests of a run: those that may follow after another run met a failure."
_MAX_RUN_S: Final = 1.0
"Largest time in seconds of a run by the host's rate; no other run starts in this time."
_MAX_HOSTS: Final = 10_000
"Number of hosts above which idle ones are forgotten, and least number until it happens again."
_REACHED: Final = Answer(reached=True)

Ticket = tuple[int, str, int]
"Number of a run's ticket, its host, and its number of requests."
Ended = tuple[str, Sequence[Answer], int]
"Host of a run that has ended, the answers to its requests, and how many were not sent."
Request = asyncio.Future[None]
"A request that waits to start: done when it may."


@dataclass(eq=False)
class _Run:
    host: str
    requests: deque[Request]
    "Those that have not started."
    num_requests: int
    num_sent: int = 0
    is_open: bool = False
    "Whether a request has started and not ended."
    timer: asyncio.TimerHandle | None = None
    "Of the next request."

    def drop_canceled(self) -> None:
        """Drop requests at the front whose callers no longer wait."""
        while self.requests and self.requests[0].done():
            self.requests.popleft()


@dataclass
class _Host:
    requests: list[Request] = field(default_factory=list)
    "Not yet in a run."
    runs: list[_Run] = field(default_factory=list)
    "Those that were granted and have not ended."
    next_start: float = 0.0
    "Time of the event loop before which no request starts, by the host's rate."


class HostRuns:
    """The requests of one event loop to many hosts; ``changed`` is set when a run waits or ends."""

    def __init__(self, rules: HostRules) -> None:
        self.rules = rules
        self.changed = asyncio.Event()
        self.num_granted = 0
        "Number of runs that were granted and have not ended."
        self._loop = asyncio.get_running_loop()
        self._hosts: dict[str, _Host] = {}
        self._max_hosts = _MAX_HOSTS
        self._new: set[str] = set()
        "Hosts with requests that are not yet in a run."
        self._waiting: dict[int, _Run] = {}
        "Runs by the numbers of their tickets."
        self._last_ticket = 0
        self._ended: list[Ended] = []

    async def acquire(self, host: str) -> None:
        """See :class:`dataprep.host_limiter.Limiter`."""
        request = self._loop.create_future()
        if host not in self._hosts and len(self._hosts) > self._max_hosts:
            self._forget_idle()
        self._hosts.setdefault(host, _Host()).requests.append(request)
        self._new.add(host)
        self.changed.set()
        try:
            await request
        except asyncio.CancelledError:
            if request.done() and not request.cancelled() and request.exception() is None:
                self.release(host, _REACHED)
            raise

    def release(self, host: str, answer: Answer) -> None:
        """See :class:`dataprep.host_limiter.Limiter`."""
        run = next(run for run in self._hosts[host].runs if run.is_open)
        run.is_open = False
        if answer.reached and not answer.pause_s:
            self._continue(run)
        else:
            self._end(run, answer)

    def new_tickets(self) -> list[Ticket]:
        """Divide the requests that are in no run into runs; return their tickets."""
        longest = max(1, min(_MAX_RUN, int(_MAX_RUN_S * self.rules.max_requests_per_second)))
        tickets = list[Ticket]()
        for name in self._new:
            requests, self._hosts[name].requests = self._hosts[name].requests, []
            length = min(-(-len(requests) // self.rules.max_concurrent_requests), longest)
            for start in range(0, len(requests), length):
                self._last_ticket += 1
                part = deque(requests[start : start + length])
                self._waiting[self._last_ticket] = _Run(name, part, len(part))
                tickets.append((self._last_ticket, name, len(part)))
        self._new = set()
        return tickets

    def has_waiting(self) -> bool:
        """Return whether runs wait for their tickets."""
        return bool(self._waiting)

    def waiting_tickets(self) -> list[Ticket]:
        """Return the tickets of the runs that wait."""
        return [(ticket, run.host, run.num_requests) for ticket, run in self._waiting.items()]

    def granted_by_host(self) -> dict[str, int]:
        """Return the number of runs that were granted and have not ended, by host."""
        return {name: len(host.runs) for name, host in self._hosts.items() if host.runs}

    def take_ended(self) -> list[Ended]:
        """Return the runs that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def grant(self, tickets: Iterable[int], paused: Sequence[str]) -> None:
        """Start runs; those of paused hosts end, or at most one request of each goes on."""
        for ticket in tickets:
            run = self._waiting.pop(ticket)
            self._hosts[run.host].runs.append(run)
            self.num_granted += 1
            if run.host in paused:
                self._end(run)
            else:
                self._continue(run)
        for run in [run for name in paused for run in self._runs_of(name)]:
            if run.timer is not None:
                run.timer.cancel()
                self._end(run)
            else:
                self._wait_anew(run)

    def refuse(self, tickets: Iterable[int]) -> None:
        """Fail the requests of runs."""
        for ticket in tickets:
            for request in self._waiting.pop(ticket).requests:
                if not request.done():
                    request.set_exception(HostUnavailable())

    def fail(self, error: Exception) -> None:
        """Fail every request that waits."""
        runs = [
            *self._waiting.values(),
            *(run for name in self._hosts for run in self._runs_of(name)),
        ]
        new = [request for host in self._hosts.values() for request in host.requests]
        for request in [*new, *(request for run in runs for request in run.requests)]:
            if not request.done():
                request.set_exception(error)

    def _runs_of(self, host: str) -> list[_Run]:
        return self._hosts[host].runs if host in self._hosts else []

    def _continue(self, run: _Run) -> None:
        """Start the next request of a run when the host's rate allows it; end an empty run."""
        run.drop_canceled()
        if not run.requests:
            self._end(run)
            return
        host, now = self._hosts[run.host], self._loop.time()
        start = max(now, host.next_start)
        host.next_start = start + 1 / self.rules.max_requests_per_second
        if start > now:
            run.timer = self._loop.call_at(start, self._start, run)
        else:
            self._start(run)

    def _start(self, run: _Run) -> None:
        run.timer = None
        run.drop_canceled()
        if not run.requests:
            self._end(run)
            return
        run.is_open = True
        run.num_sent += 1
        run.requests.popleft().set_result(None)

    def _end(self, run: _Run, failure: Answer | None = None) -> None:
        """End a run after its last request, or early, after a failure or before one is sent."""
        self._hosts[run.host].runs.remove(run)
        self.num_granted -= 1
        answers = [_REACHED] if run.num_sent > (failure is not None) else []
        if failure is not None:
            answers.append(failure)
        self._ended.append((run.host, answers, run.num_requests - run.num_sent))
        self._wait_anew(run)
        self.changed.set()

    def _wait_anew(self, run: _Run) -> None:
        if run.requests:
            self._hosts[run.host].requests[:0] = run.requests
            run.requests = deque()
            self._new.add(run.host)
            self.changed.set()

    def _forget_idle(self) -> None:
        now, waiting = self._loop.time(), {run.host for run in self._waiting.values()}
        self._hosts = {
            name: host
            for name, host in self._hosts.items()
            if host.requests or host.runs or name in waiting or host.next_start > now
        }
        self._max_hosts = len(self._hosts) + _MAX_HOSTS
