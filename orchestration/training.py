"""Training stages: a loop on the workers of Ray Train, resumed from its last checkpoint.

Checkpoints are stored in the stage's folder. A run that is started again under the same
fingerprint finds them there; the record that Ray Train keeps of them decides which is the latest.

Ray Train is imported inside functions, as it imports slowly and a plan never needs it.
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
from orchestration.reporting.run_log import RunLog
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
    """The interface of a training loop to Ray Train in one worker.

    Attributes:
        rank: index of the worker.
        num_workers: number of workers.
        num_threads: CPU threads that the worker may use.
        device: device of the worker.
    """

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
        """Yield a local folder with the newest checkpoint, or None if there is none."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save a checkpoint; every worker calls this, and ``write`` puts its files in a folder."""
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
        """Log metrics after ``done`` of ``total`` steps; only the worker of rank 0 does so."""
        if self._reporter is not None:
            self._reporter.show(done, total, metrics)


class _Reporter:
    """Writes heartbeat and metrics from a thread, so no step waits for a disk or a server."""

    def __init__(self, folder: Store, log: RunLog) -> None:
        self.folder, self.log = folder, log
        self._latest: tuple[int, int, str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._thread.start()

    def show(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step."""
        self.log.metrics(metrics, step=done)
        losses = (f"{name} {v:.3g}" for name, v in metrics.items() if name.startswith("loss"))
        self._latest = (done, total, ", ".join(losses))

    def close(self) -> None:
        """Write the last heartbeat and all pending metrics."""
        self._stop.set()
        self._thread.join()
        self._beat()
        self.log.flush()
        if left := self.log.unsent():  # the driver sends them later
            self.folder.write_bytes(_UNSENT, json.dumps(left).encode())

    def _work(self) -> None:
        last_flush = time.monotonic()
        while not self._stop.wait(_HEARTBEAT_EVERY_S):
            self._beat()
            if time.monotonic() - last_flush > _FLUSH_EVERY_S:
                self.log.flush()
                last_flush = time.monotonic()

    def _beat(self) -> None:
        if self._latest is not None:
            done, total, note = self._latest
            write_heartbeat(self.folder, done, total, "steps", note)


class TrainingParams(StageParams):
    """Workers and checkpoints of a training stage; no field changes the result."""

    checkpoint_every: Annotated[int, OPERATIONAL] = Field(default=1000, ge=1)
    "Number of optimizer steps between checkpoints."
    keep_checkpoints: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    "Number of newest checkpoints to keep."
    num_workers: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "Number of Ray Train workers."
    cpus_per_worker: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "Number of CPU cores reserved for each worker."
    use_gpu: Annotated[bool, OPERATIONAL] = False
    "Whether each worker uses one GPU."
    max_failures: Annotated[int, OPERATIONAL] = Field(default=3, ge=0)
    "Largest number of restarts from the newest checkpoint before the stage fails."


def fit(
    context: Context, params: TrainingParams, loop: Callable[[Session, Any], None], job: Any
) -> Store:
    """Run ``loop(session, job)`` on every worker; return the folder of the last checkpoint.

    Args:
        context: context of the stage.
        params: workers and checkpoints.
        loop: the training loop; it calls :meth:`Session.save` at least once.
        job: picklable argument of the loop.

    Raises:
        StageError: training failed, or saved no checkpoint; existing checkpoints are kept.
    """
    import ray.train.torch

    folder, log = context.folder, context.log

    def worker(_: dict[str, Any]) -> None:
        here = ray.train.get_context()
        rank = here.get_world_rank()
        reporter = _Reporter(folder, log) if rank == 0 else None
        try:
            # get_device() picks by local rank: the workers of a node see all of its GPUs.
            device = ray.train.torch.get_device()
            size, threads = here.get_world_size(), params.cpus_per_worker
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
        raise StageError(
            f"training in {folder.uri} saved no checkpoint; call Session.save() at the last step"
        )
    context.memory = (result.metrics or {}).get("memory", 0)
    return folder.sub(result.checkpoint.path.removeprefix(f"{folder.native_path()}/"))
