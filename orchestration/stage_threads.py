"""Threads of running stages, the second Ctrl-C, and the end that a scheduler asks for."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager


def started(work: Callable[[], None], name: str) -> Future[None]:
    """Run work on a daemon thread, as Ctrl-C must not wait for it; return its future."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name=f"stage {name}", daemon=True).start()
    return future


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM interrupt the block as Ctrl-C does; further ones are ignored.

    A scheduler sends it to a driver whose time is up, and kills the driver some time later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Make Ctrl-C end the process immediately while the block runs."""
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
