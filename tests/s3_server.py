"""moto's S3 server with atomic conditional writes, as S3 itself has them.

moto looks whether an object exists and then writes it, in two steps, so two threads of its
server can both pass the look. `python tests/s3_server.py` writes the port that it has chosen.
"""

import sys
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

Environment = dict[str, Any]


class AtomicConditionalWrites:
    """The wrapped WSGI application, with one conditional write at a time."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._writing = Lock()

    def __call__(self, environment: Environment, start: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_IF_MATCH" in environment or "HTTP_IF_NONE_MATCH" in environment:
            with self._writing:
                return self._application(environment, start)
        return self._application(environment, start)


if __name__ == "__main__":
    server = make_server(
        "127.0.0.1",
        0,
        AtomicConditionalWrites(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()
