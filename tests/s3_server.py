"""moto's S3 server with atomic conditional writes, as S3 itself has them.

moto looks whether an object exists and then writes it, in two steps, so two threads of its
server can both pass the look. `python tests/s3_server.py PORT`.
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
from werkzeug.serving import run_simple

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
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        AtomicConditionalWrites(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
