"""A proxy in front of an S3 server that fails as real stores do: errors, throttling, silence,
resets, answers that get lost, and lists that are a moment old."""

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["500", "503", "silence", "reset", "lost answer", "stale list"]
SILENCE_S = 3.0
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}

Choose = Callable[[str, str], Fault | None]
"Says how a request (method, path) fails, if it does."


class FaultyProxy:
    """What fails, and what was asked."""

    def __init__(self) -> None:
        self.choose: Choose = lambda method, path: None
        self.num_faults = 0
        self._lock = threading.Lock()

    def fail_next(self, number: int, fault: Fault, method: str = "") -> None:
        """Let the next requests (of one method) fail."""
        left = [number]

        def choose(asked: str, path: str) -> Fault | None:
            with self._lock:
                if left[0] and method in ("", asked):
                    left[0] -= 1
                    return fault
            return None

        self.choose = choose

    def fail_randomly(self, share: float, seed: int) -> None:
        """Let a share of all requests fail, in every way but silence, which takes long."""
        rng = random.Random(seed)
        faults: tuple[Fault, ...] = ("500", "503", "reset", "lost answer", "stale list")

        def choose(method: str, path: str) -> Fault | None:
            with self._lock:
                return rng.choice(faults) if rng.random() < share else None

        self.choose = choose


@contextmanager
def failing(endpoint: str) -> Iterator[tuple[FaultyProxy, str]]:
    """Serve a proxy while the block runs; give it and its own endpoint."""
    proxy = FaultyProxy()
    target = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.choose(self.command, self.path)
            is_list = self.command == "GET" and "list-type" in self.path
            if fault == "stale list" and not is_list:
                fault = None
            proxy.num_faults += fault is not None
            if fault == "silence":
                time.sleep(SILENCE_S)
            if fault in ("silence", "reset"):
                self._reset()
                return
            if fault in ("500", "503"):
                code = "InternalError" if fault == "500" else "SlowDown"
                self._answer(int(fault), f"<Error><Code>{code}</Code></Error>".encode(), {})
                return
            connection = http.client.HTTPConnection(target, timeout=30)
            headers = dict(self.headers.items()) | {"Host": self.headers["Host"]}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            if fault == "lost answer":
                self._reset()
                return
            if fault == "stale list":
                data = re.sub(rb"(.*)<Contents>.*?</Contents>", rb"\1", data, count=1, flags=re.S)
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.getheader("Content-Length") or "0"
            self._answer(answer.status, data, kept)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _reset(self) -> None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()

        def log_message(self, *args: object) -> None:
            pass

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
