"""The training loop that every training shares.

``train`` runs on each Ray Train worker: it builds the job's task, restores the newest checkpoint
and takes the remaining steps. Per step it computes the learning rate (linear warm-up, then
cosine), takes the batches that a thread has prepared, lets the task make its step, records the
metrics, and saves a checkpoint when one is due or the session asks for it. A step with a
non-finite loss or gradient, or a loss that spikes, is skipped and counted; too many in a row end
the training, and so do copies of the weights that differ at a checkpoint.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from model.training.optimizer import cosine_lr
from model.training.spikes import Spikes
from model.training.useful_work import Work
from orchestration.session import Session, Wish
from pipelines.readers.prefetch import prefetch
from pipelines.training.checkpoints import Saver, restore
from pipelines.training.guards import refuse_different_copies, refuse_divergence
from pipelines.training.history import History
from pipelines.training.params import TrainingLoopParams
from pipelines.training.profiler import StepProfiler
from pipelines.training.speed import SpeedMeter, largest_memory

Batches = TypeVar("Batches")
"What one worker trains on in one step; its type is the task's choice."


@dataclass(frozen=True)
class StepOutcome:
    """What one step measured."""

    metrics: dict[str, float]
    "Metrics by their MLflow names; the loop adds ``lr``, ``skipped`` and ``spikes``."
    skipped: bool
    "Loss or gradient was not finite and no weight changed; the same on every worker."
    spiked: bool = False
    "The loss was a spike and no weight changed; the same on every worker."
    listed_in: str = ""
    "Where the samples of a step are listed that was skipped."
    evaluation_s: float = 0.0
    "Seconds of the step that an evaluation took; they do not count as training."


class TrainTask(Protocol[Batches]):
    """What differs between trainings, on one worker."""

    @property
    def network(self) -> nn.Module:
        """The network, as it is stored in checkpoints."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over the network's parameters, with a learning rate of 0 at first."""

    @property
    def spikes(self) -> Spikes | None:
        """What judges the losses of the steps; None if spikes are not looked for."""

    def batches(self, step: int) -> Batches:
        """Return this worker's data of a step, in host memory; steps may be left out.

        It runs in a thread ahead of the training and must be a pure function of the step.
        """

    def step(self, batches: Batches, step: int, lr: float, autocast: torch.autocast) -> StepOutcome:
        """Take one optimizer step, or skip it if loss or gradient is not finite.

        Args:
            batches: what :meth:`batches` returned for the step.
            step: number of the step, from 0.
            lr: learning rate of the step.
            autocast: context for the forward pass.
        """

    def work(self, batches: Batches) -> Work:
        """Return the useful work of a step of which this worker has ``batches``."""

    def slow_feed(self, seconds: float) -> str:
        """Return what to set so that the training waits less for :meth:`batches`.

        ``seconds`` have passed since the last call, which the answer is about.
        """

    def write_files(self, folder: Path) -> None:
        """Write the task's own files into a checkpoint's folder; on the first worker only."""

    def read_files(self, folder: Path) -> None:
        """Read what continues from these files on a resume; on every worker."""


class TrainJob(Protocol):
    """Everything that a worker needs to build its task; pickled and sent to each worker."""

    @property
    def params(self) -> TrainingLoopParams:
        """Parameters of the training."""

    @property
    def seed(self) -> int:
        """Seed of initial weights and of all data."""

    def make_task(self, session: Session) -> TrainTask[Any]:
        """Build the task on a worker; torch's random generator is seeded already."""


def train(session: Session, job: TrainJob) -> None:
    """Train on one worker, from the newest checkpoint or from the start.

    Raises:
        StageError: ``max_skipped_steps`` steps in a row were skipped, or the copies of the weights
            on the workers differ at a checkpoint.
    """
    params, device = job.params, session.device
    torch.set_num_threads(session.num_threads)
    torch.manual_seed(job.seed)
    task = job.make_task(session)
    history = History(session.folder, params.log_every, spikes=task.spikes)
    restore(session, task.network, task.optimizer, history, task.read_files)
    saver = Saver(session, task.network, task.optimizer, history, task.write_files)
    start = history.step

    def prepare(step: int) -> Any:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else this thread creates a context on GPU 0
        profiler.look()
        return task.batches(session.data_step(step))

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=params.precision == "bf16")
    speed = SpeedMeter(session, torch.bfloat16 if params.precision == "bf16" else torch.float32)
    profiler = StepProfiler(session, params.profile_steps)
    # A trace is stored also if the training is stopped or fails.
    with closing(profiler), prefetch(prepare, start, params.steps) as prepared:
        for step, batches in enumerate(speed.waiting_for(prepared), start):
            lr = cosine_lr(
                step,
                lr=params.lr,
                min_lr=params.min_lr,
                warmup_steps=params.warmup_steps,
                steps=params.steps,
            )
            profiler.before(step + 1)
            outcome = task.step(batches, step, lr, autocast)
            speed.leave_out(outcome.evaluation_s)
            speed.add(task.work(batches))
            metrics = {**outcome.metrics, "lr": lr, "skipped": float(outcome.skipped)}
            if task.spikes is not None:
                metrics["spikes"] = float(outcome.spiked)
            with speed.paused():
                profiler.after(step + 1)
            is_last = step + 1 == params.steps
            row = history.add(metrics, is_last=is_last)
            refuse_divergence(history, params.max_skipped_steps, outcome.listed_in)
            if row is not None:
                session.log({**row, **speed.take(step + 1, task.slow_feed)})
            session.show(step + 1, params.steps, metrics, speed.words)
            wish = Wish.NOTHING if is_last else session.wish()
            if wish >= Wish.SAVE or params.saves_after(step + 1):
                with speed.paused():
                    refuse_different_copies(task.network, step + 1)
                    saver.save(now=wish is Wish.SAVE_NOW, is_last=is_last or wish is Wish.STOP)
                    session.log({"step": step + 1, **largest_memory(device)})
            if wish is Wish.STOP:
                return
