"""Ray Train under the engine: a loop on several workers that continues from its last checkpoint.

Checkpoints lie in the stage's own folder. A run that is started again under the same fingerprint
finds them there; Ray Train's own record of what it kept decides which is the latest.

Ray Train is imported where it is used: it takes seconds, and a plan needs none of it.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from orchestration.errors import StageError
from orchestration.params import OPERATIONAL, StageParams
from orchestration.reporting.progress import write_heartbeat
from orchestration.reporting.tracking import RunLog
from orchestration.reporting.usage import peak_memory
from orchestration.stage import Context
from orchestration.storage.store import Store

if TYPE_CHECKING:
    import torch

_RAY_TRAIN_FOLDER = "ray_train"
_UNSENT = "unsent_metrics.json"
_HEARTBEAT_EVERY_S = 1.0
_FLUSH_EVERY_S = 5.0


class Session:
    """What a training loop is given in its worker."""

    def __init__(
        self,
        rank: int,
        num_workers: int,
        num_threads: int,
        device: "torch.device",
        reporter: "_Reporter | None",
    ) -> None:
        self.rank = rank
        self.num_workers = num_workers
        self.num_threads = num_threads
        self.device = device
        self._reporter = reporter

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        """Give the folder of the newest checkpoint, or None on a fresh start."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save a checkpoint: every worker calls it and writes its own files."""
        import ray.train

        folder = Path(tempfile.mkdtemp(prefix="checkpoint_"))
        try:
            write(folder)
            ray.train.report(
                {"step": step, "memory": peak_memory()},
                checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
                checkpoint_dir_name=f"step_{step:08d}",
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def show(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Log a step's metrics and where the training is; only the first worker does."""
        if self._reporter is not None:
            self._reporter.show(done, total, metrics)


class _Reporter:
    """Writes heartbeat and metrics from a thread, so that no step waits for a disk or a server."""

    def __init__(self, folder: Store, log: RunLog) -> None:
        self.folder, self.log = folder, log
        self._place: tuple[int, int, str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._thread.start()

    def show(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Take one step's numbers."""
        self.log.metrics(metrics, step=done)
        losses = (f"{name} {v:.3g}" for name, v in metrics.items() if name.startswith("loss"))
        self._place = (done, total, ", ".join(losses))

    def close(self) -> None:
        """Write what is left."""
        self._stop.set()
        self._thread.join()
        self._beat()
        self.log.flush()
        if left := self.log.unsent():  # the driver lives on and may reach the server later
            self.folder.write_bytes(_UNSENT, json.dumps(left).encode())

    def _work(self) -> None:
        last_flush = time.monotonic()
        while not self._stop.wait(_HEARTBEAT_EVERY_S):
            self._beat()
            if time.monotonic() - last_flush > _FLUSH_EVERY_S:
                self.log.flush()
                last_flush = time.monotonic()

    def _beat(self) -> None:
        if self._place is not None:
            done, total, note = self._place
            write_heartbeat(self.folder, done, total, "steps", note)


class TrainingParams(StageParams):
    """The workers of a training stage; none of it changes the result."""

    checkpoint_every: Annotated[int, OPERATIONAL] = Field(default=1000, ge=1)
    "Optimizer steps between checkpoints."
    keep_checkpoints: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    num_workers: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    cpus_per_worker: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    use_gpu: Annotated[bool, OPERATIONAL] = False
    "One GPU for each worker."
    max_failures: Annotated[int, OPERATIONAL] = Field(default=3, ge=0)
    "Restarts from the newest checkpoint before the stage fails."


def fit(
    context: Context, params: TrainingParams, loop: Callable[[Session, Any], None], job: Any
) -> Store:
    """Run ``loop(session, job)`` on every worker; return the folder of the last checkpoint.

    Raises:
        StageError: training failed; its checkpoints are kept.
    """
    import ray.train.torch

    folder, log = context.folder, context.log

    def worker(_: dict[str, Any]) -> None:
        place = ray.train.get_context()
        rank = place.get_world_rank()
        reporter = _Reporter(folder, log) if rank == 0 else None
        try:
            # By number: the workers of a node see all of its GPUs.
            device = ray.train.torch.get_device()
            size, threads = place.get_world_size(), params.cpus_per_worker
            loop(Session(rank, size, threads, device, reporter), job)
        finally:
            if reporter is not None:
                reporter.close()

    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config={},
        scaling_config=ray.train.ScalingConfig(
            num_workers=params.num_workers,
            use_gpu=params.use_gpu,
            resources_per_worker={"CPU": params.cpus_per_worker, "GPU": int(params.use_gpu)},
        ),
        run_config=ray.train.RunConfig(
            name=_RAY_TRAIN_FOLDER,
            storage_path=folder.native_path(),
            storage_filesystem=folder.file_system(),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=params.keep_checkpoints),
            failure_config=ray.train.FailureConfig(max_failures=params.max_failures),
        ),
    )
    with context.progress.following_heartbeat():
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise StageError(
                f"training failed; checkpoints are kept in {folder.uri}, run again to continue.\n"
                f"{error}"
            ) from error
        finally:
            if folder.exists(_UNSENT):
                log.send_again(json.loads(folder.read(_UNSENT)))
                folder.remove(_UNSENT)
    if result.checkpoint is None:
        raise StageError(f"training in {folder.uri} ended without a checkpoint")
    context.memory = (result.metrics or {}).get("memory", 0)
    return folder.sub(result.checkpoint.path.removeprefix(f"{folder.native_path()}/"))
