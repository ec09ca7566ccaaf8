"""Writing checkpoints while the training goes on: one thread on each worker, one at a time.

A worker writes its files into a local folder and copies them to the stage's folder. When the files
of all workers are durable, each adds its list of them, and the last list makes the checkpoint whole
(:mod:`orchestration.checkpoint_files`). So what a kill leaves behind before that moment is not
whole. The workers exchange errors over a group of their own, beside the exchanges of the training's
steps, and all of them agree on whether the checkpoint was saved.
"""

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestration.checkpoint_files import (
    RAY_TRAIN,
    checkpoint_name,
    list_name,
    remove_lists,
    write_list,
)
from orchestration.errors import StageError, StoreError
from orchestration.storage.store import Store
from orchestration.training_failures import may_pass

if TYPE_CHECKING:
    import torch.distributed as dist

logger = logging.getLogger(__name__)

_PATIENCE: Final = timedelta(hours=2)
"How long a worker waits for the files of the others."

Copy = Callable[[Path, "dist.ProcessGroup | None"], Callable[[], None]]
"""Copies the state of a training off the device, and returns what writes it into a local folder.

Its arguments are the folder and the group of the workers that the writing may use.
"""


@dataclass(frozen=True)
class _Failure:
    """Why a worker could not save its part, as the others are told."""

    words: str
    may_pass: bool


class CheckpointWriter:
    """Writes the checkpoints of one worker."""

    def __init__(
        self,
        folder: Store,
        rank: int,
        num_workers: int,
        *,
        before_last: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin without a checkpoint.

        Args:
            folder: folder of the stage.
            rank: index of the worker.
            num_workers: number of workers.
            before_last: called by the first worker before it makes a checkpoint whole.
            after: called by the first worker after a checkpoint is whole.
        """
        self.folder, self.rank, self.num_workers = folder, rank, num_workers
        self._before_last, self._after = before_last, after
        self._group: dist.ProcessGroup | None = None
        self._thread: threading.Thread | None = None
        self._failure: _Failure | None = None
        "Of the last checkpoint, the same on every worker."

    def save(self, step: int, branch: int, copy: Copy) -> None:
        """Wait for the checkpoint before, copy the state, and write it in the background.

        Every worker calls this after the same step. Where a disk or the store has no room for the
        copy, the checkpoint has failed as if it had been so later.

        Raises:
            StageError: the checkpoint before failed in a way that would come again.
        """
        self._join()
        self.refuse_lasting_failure()
        self._failure = None
        if self._group is None and self.num_workers > 1:
            self._group = _own_group()
        local: Path | None = None
        failure = None
        try:
            local = Path(tempfile.mkdtemp(prefix="checkpoint_"))
            write = copy(local, self._group)
        except (OSError, StoreError) as error:
            failure = _failure(error)
        except BaseException:
            _remove(local)
            raise
        if failure := self._agreed(failure):  # else the others would wait for this worker's files
            _remove(local)
            self._fail(step, failure)
            return
        self._thread = threading.Thread(
            target=self._write, args=(step, branch, local, write), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self, *, must_be_whole: bool) -> None:
        """Wait until the last checkpoint is whole or has failed.

        Raises:
            StoreError: it must be whole and could not be saved at present.
            StageError: it could not be saved in a way that would come again.
        """
        self._join()
        self.refuse_lasting_failure()
        if must_be_whole and self._failure is not None:
            raise StoreError(self._failure.words)

    def close(self) -> None:
        """Wait for the last checkpoint; a failure was logged."""
        self._join()

    def refuse_lasting_failure(self) -> None:
        """Raise StageError if the last checkpoint failed in a way that would come again."""
        if self._failure is not None and not self._failure.may_pass:
            raise StageError(self._failure.words)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, step: int, branch: int, local: Path, write: Callable[[], None]) -> None:
        """Write one checkpoint; nothing is raised, and every worker passes each exchange."""
        path = f"{RAY_TRAIN}/{checkpoint_name(step, branch)}"
        checkpoint = self.folder.sub(path)
        list_file = list_name(self.rank, self.num_workers)

        def upload() -> None:
            for name, _ in Store(local).walk():
                checkpoint.write_file(name, local / name)
            write_list(local, self.rank, self.num_workers)

        def upload_list() -> None:
            if self.rank == 0:
                self._before_last()
            checkpoint.write_file(list_file, local / list_file)

        try:
            # The lists of a damaged checkpoint of the same step would describe the new files.
            failure = _failure_of(lambda: remove_lists(checkpoint)) if self.rank == 0 else None
            failure = _failure_of(write) or failure  # it exchanges plans before it writes a file
            failure = self._agreed(failure or _failure_of(upload))
            if failure is not None and self.rank == 0:
                # No worker has written its list, so it is not whole, and the next one needs room.
                _failure_of(lambda: self.folder.remove(path))
            failure = failure or self._agreed(_failure_of(upload_list))
            if failure is not None:
                self._fail(step, failure)
            elif self.rank == 0:
                self._remove_old()
        finally:
            _remove(local)

    def _fail(self, step: int, failure: _Failure) -> None:
        """Remember why a checkpoint was not saved; the first worker says so."""
        words = f"the checkpoint of step {step} could not be saved: {failure.words}"
        self._failure = _Failure(words, failure.may_pass)
        if self.rank == 0:
            logger.warning("%s; the next one is saved when it is due", words)

    def _remove_old(self) -> None:
        try:
            self._after()
        except StoreError as error:
            logger.warning("an old checkpoint could not be removed: %s", error)

    def _agreed(self, mine: _Failure | None) -> _Failure | None:
        """Return the failure of any worker; one that would come again counts more."""
        if self._group is None:
            return mine
        import torch.distributed as dist

        found: list[_Failure | None] = [None] * self.num_workers
        lost = _failure_of(lambda: dist.all_gather_object(found, mine, group=self._group))
        failures = [each for each in (*found, lost) if each is not None]
        return min(failures, key=lambda each: each.may_pass, default=None)


def _own_group() -> "dist.ProcessGroup | None":
    """Return a group for checkpoints alone, which a single worker does without.

    gloo's threads would compute in parallel once. From then on there are more threads of OpenMP
    than cores, and those of the training would sleep between any two operations.
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        return None
    group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return group


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _failure(error: BaseException) -> _Failure:
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):  # errors of the store are of another type and name its object
        words += f"; a checkpoint is made in {tempfile.gettempdir()} first, set TMPDIR to change it"
    return _Failure(words, may_pass(error))


def _failure_of(work: Callable[[], Any]) -> _Failure | None:
    """Do some work and return how it failed, if it did."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        work()
    except CheckpointException as error:
        failures = [_failure(each) for each, _ in error.failures.values()]
        return min(failures, key=lambda each: each.may_pass)
    except Exception as error:
        return _failure(error)
    return None
