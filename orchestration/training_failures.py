"""Failures of training workers: those that may pass are repeated, the others end the training.

Ray Train restarts its workers after every failure, up to ``max_failures`` times. An error that a
repetition meets again, such as a wrong shape or a diverged loss, would only be replayed.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from orchestration.errors import PipelineError, StoreError

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
    passing = (OSError, MemoryError, EOFError, torch.OutOfMemoryError, torch.AcceleratorError)
    return isinstance(error, (*passing, torch.distributed.DistError)) or type(
        error
    ).__module__.startswith("ray.")


def ending_at_once() -> Any:
    """Return a callback of Ray Train that ends a training whose failure would come again.

    That is so if the error cannot pass, or if the same error ends the training a second time
    without a checkpoint in between. A store or a file that is out of reach may be so for long.
    """
    import ray.train

    class EndingAtOnce(ray.train.UserCallback):
        def __init__(self) -> None:
            self.before = ""
            "Errors since the last checkpoint."

        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            self.before = ""

        def after_exception(
            self, run_context: Any, worker_exceptions: Mapping[int, Exception]
        ) -> None:
            errors = list(worker_exceptions.values())
            for error in errors:
                if not may_pass(error):
                    raise error
            words = _words([e for e in errors if not isinstance(e, StoreError | OSError)])
            if words and words == self.before:
                raise errors[0]
            self.before = words

    return EndingAtOnce()


def _words(errors: list[Exception]) -> str:
    """Return errors of the training's own code without their numbers, such as free memory."""
    own = [e for e in errors if not type(e).__module__.startswith("ray.")]
    return " ".join(sorted(re.sub(r"\d+", "#", f"{type(e).__name__}: {e}") for e in own))
