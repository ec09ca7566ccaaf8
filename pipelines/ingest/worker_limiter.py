"""A worker's client of the cluster's host limiter: batches calls, and long-polls for grants.

A worker whose session has ended, because it was silent too long or because the actor was restarted,
joins again with its present state, see ``cluster_host_limiter``.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Final

from ray.exceptions import RayActorError, RayError

from dataprep.host_limiter import Answer, HostUnavailable

_BATCH_S: Final = 0.005
"Time for which a worker collects calls before it sends them."
_RESTART_PAUSE_S: Final = 0.5
"Pause before a worker calls an actor again that did not answer."
_ACTOR_TIMEOUT_S: Final = 180.0
"Time without an answer of the actor after which a worker gives up."

Tickets = tuple[list[int], list[int]]
"Tickets of a worker that were granted, and those that were refused."


class WorkerLimiter:
    """A worker's client of the cluster's limiter; implements ``dataprep.host_limiter.Limiter``."""

    def __init__(self, handle: Any, name: str) -> None:
        """Join and start to poll; call it within the event loop of the fetcher.

        Args:
            handle: of the ``ClusterHostLimiter`` actor.
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
