"""Ray Train under the engine: a loop on several workers that continues from its last checkpoint.

Checkpoints lie in the stage's own folder. A run that is started again under the same fingerprint
finds them there; Ray Train's own record of what it kept decides which is the latest.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch

from orchestration.errors import StageError
from orchestration.progress import StageProgress, write_heartbeat
from orchestration.store import Store
from orchestration.tracking import RunLog

_RAY_TRAIN_FOLDER = "ray_train"
_HEARTBEAT_EVERY_S = 1.0
_FLUSH_EVERY_S = 5.0


@dataclass
class Session:
    """What a training loop is given in its worker."""

    rank: int
    num_workers: int
    num_threads: int
    folder: Store
    log: RunLog
    unit: str
    _last_beat: float = 0.0
    _last_flush: float = 0.0

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        """Give the folder of the newest checkpoint, or None on a fresh start."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save a checkpoint: every worker calls it and writes its own files."""
        folder = Path(tempfile.mkdtemp(prefix="checkpoint_"))
        try:
            write(folder)
            ray.train.report(
                {"step": step},
                checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
                checkpoint_dir_name=f"step_{step:08d}",
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if self.rank == 0:
            self.log.flush()

    def show(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Log a step's metrics and beat; only the first worker does."""
        if self.rank:
            return
        self.log.metrics(metrics, step=done)
        now = time.monotonic()
        if now - self._last_beat > _HEARTBEAT_EVERY_S or done == total:
            self._last_beat = now
            note = ", ".join(
                f"{name} {value:.3g}" for name, value in metrics.items() if name.startswith("loss")
            )
            write_heartbeat(self.folder, done, total, self.unit, note)
        if now - self._last_flush > _FLUSH_EVERY_S or done == total:
            self._last_flush = now
            self.log.flush()


def fit(
    loop: Callable[[Session, Any], None],
    config: Any,
    *,
    folder: Store,
    log: RunLog,
    progress: StageProgress,
    num_workers: int,
    cpus_per_worker: int,
    use_gpu: bool,
    keep_checkpoints: int,
    max_failures: int,
    unit: str = "steps",
) -> Path:
    """Run ``loop(session, config)`` on every worker; return the folder of the last checkpoint.

    Raises:
        StageError: training failed; its checkpoints are kept.
    """

    def worker(_: dict[str, Any]) -> None:
        context = ray.train.get_context()
        loop(
            Session(
                context.get_world_rank(),
                context.get_world_size(),
                cpus_per_worker,
                folder,
                log,
                unit,
            ),
            config,
        )

    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config={},
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=_RAY_TRAIN_FOLDER,
            storage_path=str(folder.root),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=keep_checkpoints),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    )
    with progress.following_heartbeat():
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise StageError(
                f"training failed; checkpoints are kept in {folder.root}, run again to continue.\n"
                f"{error}"
            ) from error
    if result.checkpoint is None:
        raise StageError(f"training in {folder.root} ended without a checkpoint")
    return Path(result.checkpoint.path)


def files_below(folder: Path) -> list[Path]:
    """Return every file of a checkpoint."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_json(path: Path) -> Any:
    """Read a JSON file of a checkpoint."""
    return json.loads(path.read_text())
