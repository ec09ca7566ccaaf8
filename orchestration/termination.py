"""SIGTERM to a worker of a training, as ``kill`` or the agent of a cloud sends it before SIGKILL.

Ray's own handler ends the worker at once. Here the worker asks for a checkpoint as the driver does,
waits until it is whole, and then fails, so that Ray Train restarts the training without it. Python
runs the handler when Ray Train next asks the worker how it is, about once a second.
"""

import signal
import threading
from typing import Any, Final

_ASKED: Final = threading.Event()
_ENDED: Final = threading.Event()


class WorkerTerminated(Exception):
    """A worker received SIGTERM and has ended its training; it is lost as a machine is."""


def heeding_sigterm() -> Any:
    """Return a callback of Ray Train that takes SIGTERM of each worker from Ray."""
    from ray.train.v2._internal.execution.callback import WorkerCallback

    class HeedingSigterm(WorkerCallback):
        def after_init_train_context(self) -> None:
            heed_sigterm()

    return HeedingSigterm()


def heed_sigterm() -> None:
    """Note the next SIGTERM of this process; a second one, or one after the training, ends it.

    The main thread must call it.
    """
    before: Any = signal.getsignal(signal.SIGTERM)
    _ASKED.clear()
    _ENDED.clear()

    def handle(number: int, frame: Any) -> None:
        if _ASKED.is_set() or _ENDED.is_set():
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(number)
        _ASKED.set()

    signal.signal(signal.SIGTERM, handle)


def is_terminating() -> bool:
    """Return whether this process received SIGTERM during its training."""
    return _ASKED.is_set() and not _ENDED.is_set()


def leave_if_terminating() -> None:
    """Raise WorkerTerminated if this process received SIGTERM."""
    if is_terminating():
        raise WorkerTerminated("the worker received SIGTERM")


def end_heeding() -> None:
    """Let SIGTERM end this process from now on; a thread may call it."""
    _ENDED.set()
