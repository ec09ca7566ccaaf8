"""When a host may be asked: never too many requests at once or a second, and not while it is down.

``HostBook`` is the policy: no waiting, no threads, the clock is given. ``Gate`` waits by it.

    closed --- so many failures in a row ---> open --- after a pause ---> one probe
       ^------------ the probe answers -------------------------------------|
                                 open, twice as long <--- the probe fails --|
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

_LONGEST_PAUSE_S: Final = 600.0
_FORGOTTEN_ABOVE: Final = 100_000
"Idle hosts are forgotten beyond this number."


@dataclass(frozen=True)
class HostRules:
    """How a host is treated."""

    at_once: int = 8
    "Requests to one host that are open together."
    per_second: float = 50.0
    "Requests to one host."
    failures: int = 20
    "In a row, without an answer, after which a host is left alone."
    pause_s: float = 60.0
    "Before a host that was left alone is probed; doubles with each probe that fails."


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    reached: bool
    "Whether the host answered at all, be it with an error."
    pause_s: float = 0.0
    "How long the host asked to be left alone."


@dataclass
class _Host:
    waiting: deque[int] = field(default_factory=deque)
    open: int = 0
    failures: int = 0
    not_before: float = 0.0
    "Clock's time of the next request, by the rate or by the host's own wish."
    down_until: float | None = None
    "Set while the host is left alone."
    pause_s: float = 0.0
    probing: bool = False


class HostUnavailable(Exception):
    """The host is left alone for now: it did not answer, or asked for it."""


@dataclass(frozen=True)
class Verdict:
    """What became of tickets."""

    granted: list[int]
    refused: list[int]
    next_time: float | None
    "When to ask again, if time alone could grant more."


class HostBook:
    """Who waits for which host, and who may go."""

    def __init__(self, rules: HostRules) -> None:
        self.rules = rules
        self._hosts: dict[str, _Host] = {}

    def ask(self, ticket: int, host: str) -> None:
        """Queue a ticket for a host."""
        if host not in self._hosts:
            if len(self._hosts) > _FORGOTTEN_ABOVE:
                self._forget()
            self._hosts[host] = _Host()
        self._hosts[host].waiting.append(ticket)

    def drop(self, ticket: int, host: str) -> None:
        """Take a ticket that still waits out of its queue."""
        self._hosts[host].waiting.remove(ticket)

    def leave(self, host: str, answer: Answer, now: float) -> None:
        """End a request that was granted."""
        state = self._hosts[host]
        state.open -= 1
        state.not_before = max(state.not_before, now + answer.pause_s)
        probed, state.probing = state.probing, False
        if answer.reached:
            state.failures, state.down_until, state.pause_s = 0, None, 0.0
            return
        state.failures += 1
        if probed or (state.failures >= self.rules.failures and state.down_until is None):
            longer = min(state.pause_s * 2, _LONGEST_PAUSE_S)
            state.pause_s = longer if probed else self.rules.pause_s
            state.down_until = now + state.pause_s

    def decide(self, host: str, now: float) -> Verdict:
        """Grant and refuse tickets that wait for a host."""
        state, granted = self._hosts.get(host, _Host()), list[int]()
        if state.probing:
            return Verdict([], [], None)
        is_down = state.down_until is not None
        if is_down and now >= (state.down_until or 0) and state.waiting and not state.open:
            state.probing = True
            state.open += 1
            return Verdict([state.waiting.popleft()], [], None)
        if is_down or state.not_before - now > self.rules.pause_s:
            refused = list(state.waiting)
            state.waiting.clear()
            return Verdict([], refused, None)
        while state.waiting and state.open < self.rules.at_once and state.not_before <= now:
            granted.append(state.waiting.popleft())
            state.open += 1
            state.not_before = now + 1 / self.rules.per_second
        blocked = state.waiting and state.open < self.rules.at_once
        return Verdict(granted, [], state.not_before if blocked else None)

    def _forget(self) -> None:
        self._hosts = {
            name: state
            for name, state in self._hosts.items()
            if state.waiting or state.open or state.down_until is not None
        }


class Gate(Protocol):
    """Where a fetcher waits before each request."""

    async def enter(self, host: str) -> None:
        """Wait until the host may be asked.

        Raises:
            HostUnavailable: it is left alone.
        """

    def leave(self, host: str, answer: Answer) -> None:
        """Say what came of it."""


class HostLimiter:
    """A gate for the fetchers of one event loop."""

    def __init__(self, rules: HostRules, clock: Callable[[], float] = time.monotonic) -> None:
        self.book = HostBook(rules)
        self.clock = clock
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._next = 0

    async def enter(self, host: str) -> None:
        """See :class:`Gate`."""
        self._next += 1
        ticket, future = self._next, asyncio.get_running_loop().create_future()
        self._futures[ticket] = future
        self.book.ask(ticket, host)
        self._decide(host)
        try:
            await future
        except asyncio.CancelledError:
            if self._futures.pop(ticket, None) is not None:
                self.book.drop(ticket, host)
            elif not future.cancelled() and future.exception() is None:
                self.leave(host, Answer(reached=True))
            raise

    def leave(self, host: str, answer: Answer) -> None:
        """See :class:`Gate`."""
        self.book.leave(host, answer, self.clock())
        self._decide(host)

    def _decide(self, host: str) -> None:
        verdict = self.book.decide(host, self.clock())
        for ticket in verdict.granted:
            self._futures.pop(ticket).set_result(None)
        for ticket in verdict.refused:
            self._futures.pop(ticket).set_exception(HostUnavailable(host))
        if verdict.next_time is not None:
            wait = max(verdict.next_time - self.clock(), 0.001)
            asyncio.get_running_loop().call_later(wait, self._decide, host)
