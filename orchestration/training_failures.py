"""Failures of training workers: those that may pass are repeated, the others end the training.

Ray Train restarts its workers after every failure. An error that a repetition meets again, such as
a wrong shape or a diverged loss, would only be replayed.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from orchestration.errors import PipelineError, StageError, StoreError
from orchestration.reporting.attempts import error_words
from orchestration.termination import WorkerTerminated

_LASTING: Final = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    RecursionError,
)
_DEVICE_OR_PEER: Final = re.compile(
    r"cuda|cudnn|cublas|nccl|gloo|connection|peer|timed? ?out", re.IGNORECASE
)
"Words of torch's plain RuntimeError if a device or another worker has failed."


def may_pass(error: BaseException) -> bool:
    """Return whether a training may succeed if it is repeated after this error of a worker."""
    import torch

    if isinstance(error, PipelineError):
        return isinstance(error, StoreError)
    if isinstance(error, _LASTING):
        return False
    if type(error) is RuntimeError:
        return _DEVICE_OR_PEER.search(str(error)) is not None
    of_machine = (OSError, MemoryError, EOFError, WorkerTerminated)
    of_torch = (torch.OutOfMemoryError, torch.AcceleratorError, torch.distributed.DistError)
    return isinstance(error, (*of_machine, *of_torch)) or type(error).__module__.startswith("ray.")


def ending_in_time(newest_step: Callable[[], int], max_failures: int, within_hours: float) -> Any:
    """Return a callback of Ray Train that decides which failure of workers ends a training.

    That is an error that cannot pass; the same error a second time without a checkpoint in between,
    unless a store or a file is out of reach, which may be so for long; and a failure above the
    budget. Ray Train's own budget counts all failures of a run, however long it is. A machine that
    was taken away is no failure.

    Args:
        newest_step: returns the step of the newest whole checkpoint, 0 if there is none.
        max_failures: largest number of failures within the window.
        within_hours: length of the window.
    """
    import ray.train

    class EndingInTime(ray.train.UserCallback):
        def __init__(self) -> None:
            self.before: tuple[str, int] | None = None
            "Errors of the last failure, and the newest checkpoint then."
            self.failed_at: list[float] = []
            "Times of the failures within the window."

        def after_exception(
            self, run_context: Any, worker_exceptions: Mapping[int, Exception]
        ) -> None:
            errors = list(worker_exceptions.values())
            for error in errors:
                if not may_pass(error):
                    raise error
            if any(_is_taken_away(error) for error in errors):
                return
            words = _words([e for e in errors if not isinstance(e, StoreError | OSError)])
            if words:
                with suppress(StoreError):
                    now = words, newest_step()
                    if now == self.before:
                        raise errors[0]
                    self.before = now
            self._count(errors[0])

        def _count(self, error: Exception) -> None:
            now = time.monotonic()
            since = now - 3600 * within_hours
            self.failed_at = [*(each for each in self.failed_at if each > since), now]
            if len(self.failed_at) > max_failures:
                raise StageError(
                    f"{len(self.failed_at)} failures within {within_hours:g} h are more than "
                    f"max_failures = {max_failures}; the last one: {error_words(error)}"
                )

    return EndingInTime()


def _is_taken_away(error: Exception) -> bool:
    """Return whether a worker was lost whose end, or that of its machine, had been announced."""
    if isinstance(error, WorkerTerminated):
        return True
    # Ray Train wraps the error of an actor that does not answer.
    return bool(getattr(getattr(error, "health_check_failure", error), "preempted", False))


def _words(errors: list[Exception]) -> str:
    """Return errors of the training's own code without their numbers, such as free memory."""
    own = [e for e in errors if not type(e).__module__.startswith("ray.")]
    return " ".join(sorted(re.sub(r"\d+", "#", f"{type(e).__name__}: {e}") for e in own))
