"""What runs on each worker of a training: its session, around the training's own loop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestration.branches import Branch
from orchestration.checkpoint_files import RAY_TRAIN, newest_whole, remove_old, step_of
from orchestration.checkpoint_writer import CheckpointWriter
from orchestration.reporting.run_log import RunLog
from orchestration.reporting.usage import peak_memory
from orchestration.session import Reporter, Session
from orchestration.storage.store import Store
from orchestration.termination import end_heeding


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a stage's folder, for a process that takes part in the training.

    Those that are damaged have no lists, so that their files need not be read again.
    """

    folder: Store
    "Folder of the stage."
    num_to_keep: int
    keep_every: int | None

    def newest(self) -> Store | None:
        """Return the newest whole checkpoint, or None."""
        return newest_whole(self.folder, read=False)

    def newest_step(self) -> int:
        """Return the step of the newest whole checkpoint, 0 if there is none."""
        return step_of(last) if (last := self.newest()) is not None else 0

    def remove_old(self) -> None:
        """Remove those that are not kept; Ray Train's own way cannot spare some steps."""
        if (last := self.newest()) is not None:
            remove_old(self.folder, last, self.num_to_keep, self.keep_every)


@dataclass(frozen=True)
class TrainingWorker:
    """The function of each worker, as Ray Train calls it; pickled and sent to the workers."""

    loop: Callable[[Session, Any], None]
    job: Any
    checkpoints: Checkpoints
    log: RunLog
    num_threads: int
    save_every_minutes: float | None
    branches: Sequence[Branch]

    def __call__(self, _: dict[str, Any]) -> int:
        """Train; return the peak memory in bytes."""
        import ray.train
        import ray.train.torch
        from ray.train.collective import broadcast_from_rank_zero

        here, folder = ray.train.get_context(), self.checkpoints.folder
        rank, num_workers = here.get_world_rank(), here.get_world_size()
        reporter = Reporter(folder, self.log) if rank == 0 else None
        # Workers may see different lists of a network file system, hence one looks for all. Ray
        # Train's own record lacks a checkpoint whose worker died soon after it was saved.
        newest = self.checkpoints.newest() if rank == 0 else None
        name = broadcast_from_rank_zero(newest and newest.name)
        start = folder.sub(f"{RAY_TRAIN}/{name}") if name else None
        writer = CheckpointWriter(
            folder,
            rank,
            num_workers,
            before_last=partial(_keep_unsent, reporter),
            after=self.checkpoints.remove_old,
        )
        try:
            session = Session(
                rank,
                num_workers,
                self.num_threads,
                ray.train.torch.get_device(),  # by local rank: a node's workers see all its GPUs
                reporter,
                start,
                writer=writer,
                save_every_s=60 * (self.save_every_minutes or math.inf),
                branches=self.branches,
            )
            self.loop(session, self.job)
        finally:
            writer.close()
            end_heeding()
            if reporter is not None:
                reporter.close()
        return peak_memory()


def _keep_unsent(reporter: Reporter | None) -> None:
    if reporter is not None:
        reporter.keep_unsent()
