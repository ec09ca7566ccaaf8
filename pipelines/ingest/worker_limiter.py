"""A worker's client of the cluster's host limiter: one call carries the messages of many requests.

Requests are gathered into runs (``host_runs``), each of which waits as one ticket. The client of a
shard exchanges messages with it at the pace that the shard sets, while there are any or tickets
wait. A worker whose session has ended, because it was silent too long or because the actor was
restarted, joins again with its present state, see ``cluster_host_limiter``.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

from ray.exceptions import RayActorError

from dataprep.host_limiter import Answer, HostRules
from pipelines.ingest.cluster_host_limiter import LimiterShards, Reply
from pipelines.ingest.host_runs import HostRuns

_HEARTBEAT_S: Final = 5.0
"Longest pause between two calls of a shard of which runs are held."
_RESTART_PAUSE_S: Final = 0.5
"Pause before a worker calls an actor again that did not answer."
_ACTOR_TIMEOUT_S: Final = 180.0
"Time without an answer of the actor after which a worker gives up."


class WorkerLimiter:
    """A worker's client of all shards; implements ``dataprep.host_limiter.Limiter``."""

    def __init__(self, shards: LimiterShards, name: str) -> None:
        """Take the shards, which are joined when they are first needed.

        Args:
            shards: of the cluster's limiter.
            name: of the worker, unique in the cluster.
        """
        self.shards, self.name = shards, name
        self.clients: dict[int, ShardClient] = {}

    async def acquire(self, host: str) -> None:
        """Wait until a request to the host is allowed.

        Raises:
            HostUnavailable: the host is paused.
            ray.exceptions.RayError: the actor has died and does not come back.
        """
        number = self.shards.number_of(host)
        if number not in self.clients:
            handle = self.shards.handles[number]
            self.clients[number] = ShardClient(handle, self.shards.rules, self.name)
        await self.clients[number].acquire(host)

    def release(self, host: str, answer: Answer) -> None:
        """Report the result of a request that was allowed."""
        self.clients[self.shards.number_of(host)].runs.release(host, answer)

    def close(self) -> None:
        """Stop all calls; what is held is released when the shards miss this worker."""
        for client in self.clients.values():
            client.exchanging.cancel()


class ShardClient:
    """A worker's client of one shard, in one event loop."""

    def __init__(self, handle: Any, rules: HostRules, name: str) -> None:
        self.handle, self.name = handle, name
        self.runs = HostRuns(rules)
        self.num_calls = 0
        self._session: str | None = None
        self._error: Exception | None = None
        self.exchanging = asyncio.create_task(self._exchange())

    async def acquire(self, host: str) -> None:
        """See :class:`WorkerLimiter`."""
        if self._error is not None:
            raise self._error
        await self.runs.acquire(host)

    async def _exchange(self) -> None:
        try:
            while True:
                await self._until_needed()
                reply = await self._call()
                self.runs.refuse(reply.refused)
                self.runs.grant(reply.granted, reply.paused)
                await asyncio.sleep(reply.pause_s)
        except Exception as error:  # nothing else would end the requests that wait
            self._error = error
            self.runs.fail(error)

    async def _until_needed(self) -> None:
        """Wait for something to send; if tickets wait, something may have come for them."""
        if not self.runs.has_waiting():
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT_S if self.runs.num_granted else None):
                    await self.runs.changed.wait()
        self.runs.changed.clear()

    async def _call(self) -> Reply:
        """Exchange messages, if need be with a restarted actor.

        Raises:
            RayError: the actor does not come back.
        """
        started = time.monotonic()
        while True:
            try:
                if self._session is None:
                    await self._join()
                self.num_calls += 1
                reply: Reply | None = await self.handle.exchange.remote(
                    self.name, self._session, self.runs.new_tickets(), self.runs.take_ended()
                )
            except RayActorError:  # Ray restarts the actor, without its memory
                self._session = None
                if time.monotonic() - started > _ACTOR_TIMEOUT_S:
                    raise
                await asyncio.sleep(_RESTART_PAUSE_S)
                continue
            if reply is not None:
                return reply
            self._session = None

    async def _join(self) -> None:
        """Start a session with the present state; runs that have ended need not be reported."""
        self.runs.take_ended()
        self._session = await self.handle.join.remote(
            self.name, self.runs.granted_by_host(), self.runs.waiting_tickets()
        )
