"""Training stages: a loop on the workers of Ray Train, resumed from its newest whole checkpoint.

Checkpoints are stored in the stage's folder. A run that is started again under the same fingerprint
continues at the newest one that is whole (:mod:`orchestration.checkpoint_files`). Ray Train
restarts its workers after a failure that may pass (:mod:`orchestration.training_failures`). Ctrl-C
makes the training save a checkpoint and end.

Ray Train is imported inside functions, as it imports slowly and a plan never needs it.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Final, Self

from pydantic import Discriminator, Field, Tag, model_validator

from orchestration.branches import branch_files, read_branches
from orchestration.checkpoint_files import (
    RAY_TRAIN,
    checkpoints,
    newest_whole,
    own_files,
    remove_lists,
    remove_old,
    step_of,
)
from orchestration.checkpoint_watch import OnCheckpoint, watching_checkpoints
from orchestration.errors import StageError, StoreError
from orchestration.manifest import File
from orchestration.params import OPERATIONAL, StageParams
from orchestration.reporting.attempts import error_words
from orchestration.reporting.progress import read_heartbeat, write_heartbeat
from orchestration.reporting.run_log import RunLog
from orchestration.resources import Resources
from orchestration.session import SAVE, STOP, UNSENT, Session
from orchestration.stage import Context
from orchestration.storage.store import Store
from orchestration.termination import heeding_sigterm
from orchestration.training_failures import ending_in_time
from orchestration.training_size import saving_before_resizing
from orchestration.training_worker import Checkpoints, TrainingWorker

_STOP_EVERY_S: Final = 0.2

_NumWorkers = Annotated[int, Field(ge=1)]
Workers = Annotated[
    Annotated[_NumWorkers, Tag("number")]
    | Annotated[tuple[_NumWorkers, _NumWorkers], Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, list | tuple) else "number"),
]
"A number of workers, or the smallest and the largest; errors speak of the one that is meant."
Steps = Annotated[int, Field(ge=1, description="Number of optimizer steps.")]


class TrainingParams(StageParams):
    """Length, workers and checkpoints of a training stage; only the length changes the result."""

    steps: Steps
    checkpoint_every: Annotated[int | None, OPERATIONAL] = Field(default=1000, ge=1)
    "Number of optimizer steps between checkpoints; null sets none."
    checkpoint_every_minutes: Annotated[float | None, OPERATIONAL] = Field(default=None, gt=0)
    "Minutes after the last checkpoint in which another is due; null sets none."
    keep_checkpoints: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    "Number of newest checkpoints to keep."
    keep_every: Annotated[int | None, OPERATIONAL] = Field(default=None, ge=1)
    "A checkpoint at each multiple of this number of steps is saved and never removed."
    num_workers: Annotated[Workers, OPERATIONAL] = 1
    "Number of Ray Train workers, or the fewest and the most: as many as the cluster has room for."
    cpus_per_worker: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "Number of CPU cores reserved for each worker."
    use_gpu: Annotated[bool, OPERATIONAL] = False
    "Whether each worker uses one GPU."
    max_failures: Annotated[int, OPERATIONAL] = Field(default=3, ge=0)
    "Largest number of failures within `failures_within_hours` after which the workers restart."
    failures_within_hours: Annotated[float, OPERATIONAL] = Field(default=24, gt=0)
    "Hours after which a failure no longer counts toward `max_failures`."

    def saves_after(self, step: int) -> bool:
        """Return whether a checkpoint is due after so many steps."""
        every = [n for n in (self.checkpoint_every, self.keep_every) if n is not None]
        return step == self.steps or any(step % number == 0 for number in every)

    @model_validator(mode="after")
    def _fewest_workers_first(self) -> Self:
        if self.min_workers > self.max_workers:
            numbers = f"[{self.min_workers}, {self.max_workers}]"
            raise ValueError(f"num_workers = {numbers}: the smaller number comes first")
        return self

    @property
    def min_workers(self) -> int:
        """Smallest number of workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """Largest number of workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def resources(self) -> Resources:
        """Return what the workers reserve; a step needs all of them."""
        return Resources(self.cpus_per_worker, int(self.use_gpu), self.min_workers)


def fit(
    context: Context,
    params: TrainingParams,
    loop: Callable[[Session, Any], None],
    job: Any,
    on_checkpoint: OnCheckpoint | None = None,
) -> Store:
    """Run ``loop(session, job)`` on every worker; return the folder of the last checkpoint.

    Args:
        context: context of the stage.
        params: length, workers and checkpoints.
        loop: the training loop; it calls :meth:`Session.save` at least after the last step.
        job: everything that the loop needs; it is pickled and sent to the workers.
        on_checkpoint: called in a thread for each new checkpoint while the training goes on.

    Raises:
        StageError: the workers failed too often or in a way that would come again, the user
            stopped the training, or there is no checkpoint of the last step.
    """
    folder = context.folder
    _send_unsent(folder, context.log)
    start = _start(context, params)
    if start is not None and step_of(start) == params.steps:
        return start
    try:
        with (
            context.progress.following_heartbeat(),
            watching_checkpoints(folder, start, on_checkpoint),
            _asked_to_stop(context),
        ):
            checkpoint = _run_workers(context, params, loop, job)
    finally:
        _send_unsent(folder, context.log)
    step = step_of(checkpoint) if checkpoint is not None else 0
    is_done = step == params.steps
    if context.stopping.is_set():
        rest = "commits the result" if is_done else f"continues at step {step + 1}"
        _say(context, f"stopped after step {step}, the same command {rest}")
        raise StageError(f"stopped after step {step}; its checkpoint is kept in {folder.uri}")
    if checkpoint is None or not is_done:
        raise StageError(
            f"training in {folder.uri} saved no checkpoint of step {params.steps}; call "
            "Session.save() at the last step"
        )
    remove_old(folder, checkpoint, params.keep_checkpoints, params.keep_every)
    return checkpoint


def files_of(context: Context, checkpoint: Store) -> list[File]:
    """Return a checkpoint's own files and the record of branches, for :meth:`Context.commit`."""
    within = checkpoint.uri.removeprefix(f"{context.folder.uri}/")
    own = [
        file.model_copy(update={"path": f"{within}/{file.path}"}) for file in own_files(checkpoint)
    ]
    return own + branch_files(context.folder)


def _start(context: Context, params: TrainingParams) -> Store | None:
    """Return the checkpoint to continue from, or None; say which, and which are damaged."""
    folder = context.folder
    for leftover in (STOP, SAVE):
        folder.remove(leftover)
    damaged: list[str] = []
    start = newest_whole(folder, tell=damaged.append)
    for line in damaged:
        _say(context, line)
    step = step_of(start) if start is not None else 0
    before = read_heartbeat(folder) or {"note": ""}
    write_heartbeat(folder, step, params.steps, "steps", before["note"] if step else "")
    if step == params.steps:
        _say(context, f"all {step} steps are done")
    elif step or damaged:
        _say(context, f"continues at step {step + 1}")
    for checkpoint in checkpoints(folder):
        if start is not None and step_of(checkpoint) <= step:
            break
        remove_lists(checkpoint)  # later questions for the newest one then need not read files
    if start is not None:
        remove_old(folder, start, params.keep_checkpoints, params.keep_every)
    return start


def _run_workers(
    context: Context, params: TrainingParams, loop: Callable[[Session, Any], None], job: Any
) -> Store | None:
    """Run the loop on the workers; return the newest checkpoint, or None if there is none."""
    import ray.train
    import ray.train.torch

    folder = context.folder
    saved = Checkpoints(folder, params.keep_checkpoints, params.keep_every)
    worker = TrainingWorker(
        loop,
        job,
        saved,
        context.log,
        params.cpus_per_worker,
        params.checkpoint_every_minutes,
        read_branches(folder),
    )
    trainer = ray.train.torch.TorchTrainer(
        worker.__call__,
        train_loop_config={},
        scaling_config=ray.train.ScalingConfig(
            num_workers=params.num_workers,
            use_gpu=params.use_gpu,
            resources_per_worker={"CPU": params.cpus_per_worker, "GPU": int(params.use_gpu)},
        ),
        run_config=ray.train.RunConfig(
            name=RAY_TRAIN,
            storage_path=folder.native_path(),
            storage_filesystem=folder.file_system(),
            failure_config=ray.train.FailureConfig(max_failures=-1),
            callbacks=[
                ending_in_time(
                    saved.newest_step, params.max_failures, params.failures_within_hours
                ),
                saving_before_resizing(folder, saved.newest_step),
                heeding_sigterm(),
            ],
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        cause = getattr(error, "controller_failure", error)
        raise StageError(
            f"training failed; a new run continues from the checkpoints in {folder.uri}.\n"
            f"{error_words(cause)}"
        ) from error
    context.memory = result.return_value or 0
    return saved.newest()


@contextmanager
def _asked_to_stop(context: Context) -> Iterator[None]:
    """Ask the training to save a checkpoint and to end when the workflow is interrupted."""
    folder, name = context.folder, context.stage.name
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_STOP_EVERY_S):
            if context.stopping.is_set():
                with suppress(StoreError):
                    folder.write_bytes(STOP, b"{}")
                    return

    watcher = threading.Thread(target=watch, name=f"stop {name}", daemon=True)
    watcher.start()
    context.graceful.add(name)
    try:
        yield
    finally:
        context.graceful.discard(name)
        done.set()
        watcher.join()
        with suppress(StoreError):
            folder.remove(STOP)


def _send_unsent(folder: Store, log: RunLog) -> None:
    """Send the metrics that workers could not send; keep them if the server does not answer."""
    with suppress(StoreError):
        for name in folder.names(UNSENT, ".json"):
            log.send_again(json.loads(folder.read(f"{UNSENT}/{name}")))
        if not log.unsent():
            folder.remove(UNSENT)


def _say(context: Context, words: str) -> None:
    context.progress.console.print(f"{context.stage.name}: {words}", highlight=False)
