"""An HTTP server of one file that misbehaves on demand."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from orchestration.storage.remote_files import head_of, version_of


class OneFile:
    """Serves one body under every path; tests change what it does."""

    def __init__(self, body: bytes) -> None:
        self.body, self.etag = body, '"one"'
        self.last_modified = ""
        self.statuses: list[int] = []
        "Answers of the next requests, before it goes well again."
        self.cut: list[int] = []
        "Bytes after which the next answers break off."
        self.num_requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.num_requests += 1
                if outer.statuses and (status := outer.statuses.pop(0)) != 200:
                    self.send_error(status)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.body)))
                if outer.etag:
                    self.send_header("ETag", outer.etag)
                if outer.last_modified:
                    self.send_header("Last-Modified", outer.last_modified)
                self.end_headers()
                sent = outer.cut.pop(0) if outer.cut else len(outer.body)
                with contextlib.suppress(OSError):
                    self.wfile.write(outer.body[:sent])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_port}/lists/my%20list.tsv?signed=x/y"


@contextmanager
def serving(body: bytes) -> Iterator[OneFile]:
    """Serve in a thread while the block runs; what an earlier server gave is forgotten."""
    version_of.cache_clear()
    head_of.cache_clear()
    made = OneFile(body)
    threading.Thread(target=made.http.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.http.shutdown()
        made.http.server_close()
