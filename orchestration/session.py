"""What a training loop sees of its surroundings in one worker: checkpoints, progress, wishes.

Ray Train is imported inside functions, as it imports slowly and a plan never needs it.
"""

import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestration.branches import Branch, data_step
from orchestration.checkpoint_writer import CheckpointWriter, Copy
from orchestration.errors import StoreError
from orchestration.reporting.progress import write_heartbeat
from orchestration.reporting.run_log import RunLog
from orchestration.storage.store import Store
from orchestration.termination import is_terminating, leave_if_terminating
from orchestration.training_messages import Messages

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

UNSENT: Final = "unsent_metrics"
"Folder of the metrics that a worker could not send; the driver sends them."
STOP: Final = "stop.json"
"File by which the driver asks a training to save a checkpoint and to end."
SAVE: Final = "save.json"
"File by which a running training is asked to save a checkpoint; each content asks once."
_HEARTBEAT_EVERY_S: Final = 1.0
_FLUSH_EVERY_S: Final = 5.0
_LOOK_EVERY_S: Final = 5.0
"Time between questions to Ray Train whether it is about to lose a node."


class Wish(IntEnum):
    """What a training should do after a step; of several wishes the largest counts."""

    NOTHING = 0
    LOOK = 1
    "Ask Ray Train whether it is about to lose a node; all workers must ask together."
    SAVE = 2
    "Save a checkpoint."
    SAVE_NOW = 3
    "Save a checkpoint and wait until it is whole."
    STOP = 4
    "Save a checkpoint and end."


class Session:
    """The interface of a training loop to Ray Train in one worker.

    Attributes:
        rank: index of the worker, of ``num_workers``.
        num_threads: CPU threads that the worker may use.
        device: device of the worker.
    """

    def __init__(
        self,
        rank: int,
        num_workers: int,
        num_threads: int,
        device: "torch.device",
        reporter: "Reporter | None",
        start: Store | None = None,
        *,
        writer: CheckpointWriter | None = None,
        save_every_s: float = math.inf,
        branches: Sequence[Branch] = (),
    ) -> None:
        """Begin the work of one worker.

        Args:
            rank, num_workers, num_threads, device: the attributes.
            reporter: of the worker of rank 0; None on the others.
            start: checkpoint to continue from, the same on every worker.
            writer: writes the checkpoints of this worker; None if it never saves any.
            save_every_s: time after which a checkpoint is due.
            branches: how the training went back so far.
        """
        self.rank = rank
        self.num_workers = num_workers
        self.num_threads = num_threads
        self.device = device
        self._reporter = reporter
        self._start = start
        self._writer = writer
        self._save_every_s = save_every_s
        self._branches = branches
        self._saved_at = self._looked_at = time.monotonic()
        self._lost_nodes: set[str] = set()
        "Nodes about to be lost, for which a checkpoint is saved already."
        self._group: Any = None
        self._vote: tuple[torch.Tensor, Any] | None = None
        "The vote of the last step, which is exchanged in the background."

    @property
    def folder(self) -> Store | None:
        """Folder of the stage on the worker of rank 0, else None."""
        return self._reporter.folder if self._reporter is not None else None

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to continue from."""
        return self._start is not None

    @property
    def messages(self) -> Messages:
        """Takes tags, files and warnings; those of workers of another rank than 0 are dropped."""
        return self._reporter.messages if self._reporter is not None else Messages(None)

    @contextmanager
    def starting_checkpoint(self) -> Iterator[Path | None]:
        """Yield a local folder with the checkpoint to continue from, or None if there is none."""
        import ray.train

        if self._start is None:
            yield None
        else:
            checkpoint = ray.train.Checkpoint(self._start.native_path(), self._start.file_system())
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def save(self, step: int, copy: Copy, *, now: bool = False, is_last: bool = False) -> None:
        """Save a checkpoint after ``step`` steps; every worker calls this.

        The training waits for the checkpoint before and for ``copy``. A checkpoint that could not
        be saved is reported, and the next one is saved when it is due. ``now`` waits until it is
        whole or has failed, ``is_last`` until it is whole.

        Raises:
            StoreError: the last checkpoint could not be saved at present.
            StageError: a checkpoint failed in a way that would come again.
            WorkerTerminated: this worker received SIGTERM.
        """
        assert self._writer is not None
        self._writer.save(step, len(self._branches), copy)
        self._saved_at = time.monotonic()
        if now or is_last:
            self._writer.wait(must_be_whole=is_last)
        if now:
            leave_if_terminating()

    def data_step(self, step: int) -> int:
        """Return the step whose data to take in ``step``, as data may have been left out."""
        return data_step(self._branches, step)

    def wish(self) -> Wish:
        """Return what the training should do after this step; the same on every worker.

        Every worker calls this after every step. A training is asked to stop by the user. It is
        asked to save if the last checkpoint is old, or if a machine or worker is about to go.
        """
        if self._writer is not None:
            self._writer.refuse_lasting_failure()
        agreed = self._agreed(self._own_wish())
        if agreed is not Wish.LOOK:
            return agreed
        import ray.train

        notice = ray.train.get_preemption_info()
        nodes = set(notice.preempted_node_ids) if notice is not None else set()
        is_new = bool(nodes - self._lost_nodes)
        self._lost_nodes |= nodes
        return Wish.SAVE_NOW if is_new else Wish.NOTHING

    def _own_wish(self) -> Wish:
        """Return the wish of this worker; only the first has any but that of SIGTERM to itself."""
        now = time.monotonic()
        if is_terminating():
            return Wish.SAVE_NOW
        if self._reporter is None:
            return Wish.NOTHING
        if self._reporter.must_stop:
            return Wish.STOP
        if self._reporter.must_save():
            return Wish.SAVE_NOW
        if now - self._saved_at >= self._save_every_s:
            self._saved_at = now
            return Wish.SAVE
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            return Wish.LOOK
        return Wish.NOTHING

    def _agreed(self, mine: Wish) -> Wish:
        """Return the largest wish of all workers at the step before.

        It is exchanged between processors while the next step runs, so neither waits for it.
        """
        if self.num_workers == 1:
            return mine
        import torch
        import torch.distributed as dist

        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        last = self._vote
        vote = torch.tensor(int(mine))
        self._vote = vote, dist.all_reduce(vote, dist.ReduceOp.MAX, self._group, async_op=True)
        if last is None:
            return Wish.NOTHING
        last[1].wait()
        return Wish(int(last[0]))

    def show(self, done: int, total: int, metrics: Mapping[str, float], rates: str = "") -> None:
        """Show losses and ``rates`` after ``done`` of ``total`` steps; only rank 0 does so."""
        if self._reporter is not None:
            self._reporter.show(done, total, metrics, rates)

    def log(self, row: Mapping[str, float]) -> None:
        """Send metrics and their ``step`` to MLflow; only the worker of rank 0 does so."""
        if self._reporter is not None:
            metrics = {name: value for name, value in row.items() if name != "step"}
            self._reporter.log.metrics(metrics, step=int(row["step"]))


class Reporter:
    """Writes heartbeat and metrics from threads, so no step waits for a disk or a server.

    No failure here ends the training.
    """

    def __init__(self, folder: Store, log: RunLog) -> None:
        self.folder, self.log, self.messages = folder, log, Messages(log)
        self.must_stop = False
        self._asked = self._answered = b""
        "What the file asked for last, and which of it was answered."
        self._unsent = f"{UNSENT}/{uuid.uuid4().hex}.json"
        self._latest: tuple[int, int, str] | None = None
        self._stop = threading.Event()
        # A tracking server may keep its thread waiting for minutes.
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._follow_store, self._send_metrics)
        ]
        for thread in self._threads:
            thread.start()

    def show(self, done: int, total: int, metrics: Mapping[str, float], rates: str = "") -> None:
        """Show the losses of one step, and rates."""
        losses = [f"{name} {v:.3g}" for name, v in metrics.items() if name.startswith("loss")]
        self._latest = (done, total, ", ".join(filter(None, [*losses, rates])))

    def must_save(self) -> bool:
        """Return whether a checkpoint has been asked for since the last call."""
        is_new = self._asked != self._answered
        self._answered = self._asked
        return is_new

    def close(self) -> None:
        """Write the last heartbeat and all pending metrics."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._beat()
        self.log.flush()
        self.messages.send()
        self.keep_unsent()

    def keep_unsent(self) -> None:
        """Write the metrics that are not sent yet to the store, for the driver to send.

        What a checkpoint covers is not computed again, so its metrics must outlive the worker.
        """
        try:
            if left := self.log.unsent():
                self.folder.write_bytes(self._unsent, json.dumps(left).encode())
            elif self.folder.exists(self._unsent):
                self.folder.remove(self._unsent)
        except StoreError as error:
            logger.warning("metrics that are not sent yet could not be stored: %s", error)

    def _follow_store(self) -> None:
        while not self._stop.wait(_HEARTBEAT_EVERY_S):
            self._beat()
            with suppress(StoreError):
                self.must_stop = self.must_stop or self.folder.exists(STOP)
                if self.folder.exists(SAVE):
                    self._asked = self.folder.read(SAVE)

    def _send_metrics(self) -> None:
        while not self._stop.wait(_FLUSH_EVERY_S):
            self.log.flush()
            self.messages.send()

    def _beat(self) -> None:
        if self._latest is not None:
            done, total, note = self._latest
            write_heartbeat(self.folder, done, total, "steps", note, self.messages.warning)
