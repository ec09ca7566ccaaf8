"""Servers that answer with exact bytes, and a fetch from them; all of it on the loopback interface.

The bytes of an answer are chosen by path, so that a test can send what no HTTP library would.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from dataprep.addresses import AddressRules, Resolver
from dataprep.fetch import Fetcher
from dataprep.fetch_rules import FetchError, FetchRules
from dataprep.host_limiter import HostLimiter, HostRules
from dataprep.proxies import Proxies

IMAGE = b"\xff\xd8\xff\xe0" + bytes(range(256))
"Bytes that begin like a JPEG."
Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def http(
    body: bytes = IMAGE, *lines: str | bytes, status: str = "200 OK", sized: bool = True
) -> bytes:
    """Return a response with extra header lines."""
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    length = [b"Content-Length: %d" % len(body)] if sized else []
    return b"\r\n".join([f"HTTP/1.1 {status}".encode(), *encoded, *length, b"", body])


def redirect(location: str | bytes, *lines: str) -> bytes:
    """Return a redirect."""
    target = location if isinstance(location, bytes) else location.encode()
    return http(b"", b"Location: " + target, *lines, status="302 Found")


@dataclass
class RawServer:
    """Answers by request target; records the head of every request."""

    answers: Mapping[str, Answer] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    def targets(self) -> list[str]:
        """Return the request targets, in the order of the requests."""
        return [head.split(b" ", 2)[1].decode("latin-1") for head in self.heads]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                answer = self.answers.get(self.targets()[-1], http())
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    if b"Content-Length" not in answer and b"chunked" not in answer:
                        break
                else:
                    await answer(writer)
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(server: RawServer, host: str = "127.0.0.1") -> AsyncIterator[RawServer]:
    """Serve on a loopback address while the block runs, on a free port the first time."""
    listener = await asyncio.start_server(server.handle, host, server.port, limit=1 << 20)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def fetch(
    urls: Sequence[str],
    public: RawServer,
    private: RawServer | None = None,
    *,
    dns: Callable[[AddressRules], Resolver] = Resolver,
    proxies: Mapping[str, str] | None = None,
    hosts: HostRules | None = None,
    **rules: object,
) -> list[bytes | FetchError]:
    """Fetch URLs; names under ``.test`` lead to the server ``public``.

    ``{public}`` and ``{private}`` in URLs and proxies are the servers' ports.
    """
    settings = {"max_attempts": 1, "read_timeout_s": 2, "total_timeout_s": 4, "first_wait_s": 0.01}

    async def run() -> list[bytes | FetchError]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(listening(public))
            ports = {"public": public.port}
            if private is not None:
                await stack.enter_async_context(listening(private))
                await stack.enter_async_context(listening(private, "::1"))
                ports["private"] = private.port
            addresses = AddressRules(
                bool(rules.pop("private", False)), {"*.test": f"127.0.0.1:{public.port}"}
            )
            fetcher = Fetcher(
                FetchRules("tests", addresses=addresses, **{**settings, **rules}),
                HostLimiter(hosts or HostRules(max_requests_per_second=1e6)),
                dns(addresses),
                Proxies({k: v.format(**ports) for k, v in (proxies or {}).items()}),
            )
            with ThreadPoolExecutor(1) as threads:
                found = await fetcher.fetch_all(
                    [url.format(**ports) for url in urls], bytes, threads
                )
            await fetcher.close()
            return found

    return asyncio.run(run())


def reason(outcome: bytes | FetchError) -> str:
    """Return the reason of a failure, or ``ok``."""
    return outcome.reason if isinstance(outcome, FetchError) else "ok"
