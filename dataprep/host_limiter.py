"""Limits per host: open requests, request rate, and pauses for hosts that do not answer.

:class:`HostPolicy` is the policy alone: it never waits, and the caller gives it the time.
:class:`HostLimiter` waits by that policy in one event loop. The pauses are a circuit breaker:

    closed --- consecutive failures ---> open --- after a pause ---> one probe request
       ^----------- the probe is answered ------------------------------|
                       open, twice as long <--- the probe fails --------|
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

_LONGEST_PAUSE_S: Final = 600.0
_MAX_HOSTS: Final = 100_000
"Number of hosts above which idle ones are forgotten, and least number until it happens again."


@dataclass(frozen=True)
class HostRules:
    """Limits for each host."""

    max_concurrent_requests: int = 8
    "Largest number of open requests to one host."
    max_requests_per_second: float = 50.0
    "Largest rate of requests to one host."
    max_consecutive_failures: int = 20
    "Largest number of consecutive unanswered requests before the host is paused."
    pause_s: float = 60.0
    "First pause of a host before it is probed; doubles with each probe that fails."


@dataclass(frozen=True)
class Answer:
    """The result of a request, as far as it concerns the host."""

    reached: bool
    "Whether the host answered at all, even with an error."
    pause_s: float = 0.0
    "Pause that the host asked for."


@dataclass(slots=True)
class _Host:
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    "Tickets and their numbers of requests."
    num_open: int = 0
    failures: int = 0
    next_start: float = 0.0
    "Earliest time of the next request by the rate limit."
    not_before: float = 0.0
    "Earliest time of the next request by the host's Retry-After."
    paused_until: float | None = None
    "End of the pause; None while the host answers."
    pause_s: float = 0.0
    probing: bool = False


class HostUnavailable(Exception):
    """The host is paused: it did not answer, or asked for a long pause."""


@dataclass(frozen=True)
class Decision:
    """Tickets of a host that were granted or refused."""

    granted: list[int]
    refused: list[int]
    next_time: float | None
    "Time of the next decision, if waiting alone could grant more; else None."


class HostPolicy:
    """Queues of tickets by host, and the decision which of them may go.

    A ticket may stand for several requests, which its holder sends one after the other.
    """

    def __init__(self, rules: HostRules) -> None:
        self.rules = rules
        self._hosts: dict[str, _Host] = {}
        self._max_hosts = _MAX_HOSTS
        self._now = 0.0

    def add(self, ticket: int, host: str, num_requests: int = 1) -> None:
        """Queue a ticket of one or more requests for a host."""
        if host not in self._hosts:
            if len(self._hosts) > self._max_hosts:
                self._forget_idle()
            self._hosts[host] = _Host()
        self._hosts[host].waiting.append((ticket, num_requests))

    def cancel(self, ticket: int, host: str) -> None:
        """Remove a ticket that still waits."""
        state = self._hosts[host]
        state.waiting = deque(each for each in state.waiting if each[0] != ticket)

    def restore(self, host: str) -> None:
        """Count a ticket that another policy granted and that is still held."""
        self._hosts.setdefault(host, _Host()).num_open += 1

    def release(
        self, host: str, answers: Sequence[Answer], now: float, num_unused: int = 0
    ) -> None:
        """End a ticket that was granted.

        Args:
            host: of the ticket.
            answers: to its requests, in their order; successive equal ones may be left out.
            now: time in seconds.
            num_unused: number of its requests that were not sent.
        """
        state, self._now = self._hosts[host], now
        state.num_open -= 1
        state.next_start -= num_unused / self.rules.max_requests_per_second
        for answer in answers:
            self._judge(state, answer, now)
        state.probing = False

    def _judge(self, state: _Host, answer: Answer, now: float) -> None:
        state.not_before = max(state.not_before, now + answer.pause_s)
        probed, state.probing = state.probing, False
        if answer.reached:
            state.failures, state.paused_until, state.pause_s = 0, None, 0.0
            return
        state.failures += 1
        too_many = state.failures >= self.rules.max_consecutive_failures
        if probed or (too_many and state.paused_until is None):
            longer = min(state.pause_s * 2, _LONGEST_PAUSE_S)
            state.pause_s = longer if probed else self.rules.pause_s
            state.paused_until = now + state.pause_s

    def is_paused(self, host: str, now: float) -> bool:
        """Return whether a host is paused, after failures or by its Retry-After."""
        state = self._hosts.get(host, _Host())
        return state.paused_until is not None or state.not_before > now

    def hosts(self) -> list[str]:
        """Return the hosts for which tickets wait."""
        return [host for host, state in self._hosts.items() if state.waiting]

    def decide(self, host: str, now: float) -> Decision:
        """Grant and refuse tickets that wait for a host."""
        state, granted, self._now = self._hosts.get(host, _Host()), list[int](), now
        if state.probing:
            return Decision([], [], None)
        is_paused = state.paused_until is not None
        is_over = now >= (state.paused_until or 0)
        if is_paused and is_over and state.waiting and not state.num_open:
            state.probing = True
            return Decision([self._grant(state, now)], [], None)
        if is_paused or state.not_before - now > self.rules.pause_s:
            refused = [ticket for ticket, _ in state.waiting]
            state.waiting.clear()
            return Decision([], refused, None)
        most = self.rules.max_concurrent_requests
        while state.waiting and state.num_open < most and self._start(state) <= now:
            granted.append(self._grant(state, now))
        blocked = state.waiting and state.num_open < most
        return Decision(granted, [], self._start(state) if blocked else None)

    def _start(self, state: _Host) -> float:
        return max(state.next_start, state.not_before)

    def _grant(self, state: _Host, now: float) -> int:
        ticket, num_requests = state.waiting.popleft()
        state.num_open += 1
        state.next_start = max(state.next_start, now)
        state.next_start += num_requests / self.rules.max_requests_per_second
        return ticket

    def _forget_idle(self) -> None:
        self._hosts = {
            name: state
            for name, state in self._hosts.items()
            if state.waiting
            or state.num_open
            or state.paused_until is not None
            or self._start(state) > self._now
        }
        self._max_hosts = len(self._hosts) + _MAX_HOSTS


class Limiter(Protocol):
    """A fetcher acquires a host before each request and releases it afterwards."""

    async def acquire(self, host: str) -> None:
        """Wait until a request to the host is allowed.

        Raises:
            HostUnavailable: the host is paused.
        """

    def release(self, host: str, answer: Answer) -> None:
        """Report the result of a request that was allowed."""

    def close(self) -> None:
        """End what the limiter does on its own; called in its event loop."""


class HostLimiter:
    """A :class:`Limiter` for the fetchers of one event loop."""

    def __init__(self, rules: HostRules, clock: Callable[[], float] = time.monotonic) -> None:
        self.policy = HostPolicy(rules)
        self.clock = clock
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._next = 0

    async def acquire(self, host: str) -> None:
        """See :class:`Limiter`."""
        self._next += 1
        ticket, future = self._next, asyncio.get_running_loop().create_future()
        self._futures[ticket] = future
        self.policy.add(ticket, host)
        self._decide(host)
        try:
            await future
        except asyncio.CancelledError:
            if self._futures.pop(ticket, None) is not None:
                self.policy.cancel(ticket, host)
            elif not future.cancelled() and future.exception() is None:
                self.release(host, Answer(reached=True))
            raise

    def release(self, host: str, answer: Answer) -> None:
        """See :class:`Limiter`."""
        self.policy.release(host, [answer], self.clock())
        self._decide(host)

    def close(self) -> None:
        """See :class:`Limiter`."""

    def _decide(self, host: str) -> None:
        decision = self.policy.decide(host, self.clock())
        for ticket in decision.granted:
            future = self._futures.pop(ticket)
            if future.done():  # its caller was canceled, and has not run since
                asyncio.get_running_loop().call_soon(self.release, host, Answer(reached=True))
            else:
                future.set_result(None)
        for ticket in decision.refused:
            future = self._futures.pop(ticket)
            if not future.done():
                future.set_exception(HostUnavailable(host))
        if decision.next_time is not None:
            wait = max(decision.next_time - self.clock(), 0.001)
            asyncio.get_running_loop().call_later(wait, self._decide, host)
