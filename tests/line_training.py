"""A linear regression as a training, alone or as the stage of a workflow that can be run.

    python -m tests.line_training WORKDIR TRACES PARAMS

PARAMS is JSON. Each step that a worker starts adds a line to TRACES, outside the store.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from model.training.spikes import Spikes
from model.training.useful_work import Work
from orchestration import Context, Recipe, Stage, Workflow
from orchestration.branches import branch_numbers
from orchestration.recipe import ClusterParams
from orchestration.session import Session
from orchestration.storage.store import Store
from orchestration.training import files_of, fit
from pipelines.training.history import complete_curve
from pipelines.training.loop import StepOutcome, train
from pipelines.training.params import TrainingLoopParams

PARAMS = {
    "steps": 40, "lr": 0.2, "min_lr": 0.01, "warmup_steps": 4, "weight_decay": 0.0,
    "substreams": 2, "precision": "fp32", "max_skipped_steps": 3, "checkpoint_every": 15,
    "log_every": 1,
}  # fmt: skip

Before = Callable[[int, int], None]
"Called before a step with its number and the worker's rank."


@dataclass(frozen=True)
class LineJob:
    """Fits y = 3 x; the gradient of the steps in ``broken`` is not finite."""

    params: TrainingLoopParams
    seed: int = 0
    broken: tuple[int, ...] = ()
    before: Before = lambda step, rank: None

    def make_task(self, session: Session) -> "LineTask":
        return LineTask(self, session.rank)


class LineTask:
    """Counts nothing and draws its data from the step alone."""

    spikes: Spikes | None = None

    def __init__(self, job: LineJob, rank: int = 0) -> None:
        self.job, self.rank = job, rank
        self.network = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.0)

    def batches(self, step: int) -> torch.Tensor:
        return torch.randn(8, 1, generator=torch.Generator().manual_seed(step))

    def step(
        self, batches: torch.Tensor, step: int, lr: float, autocast: torch.autocast
    ) -> StepOutcome:
        self.job.before(step, self.rank)
        with autocast:
            loss = ((self.network(batches) - 3 * batches) ** 2).mean()
        if step in self.job.broken:
            return StepOutcome({"loss": math.nan}, skipped=True)
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return StepOutcome({"loss": float(loss.detach())}, skipped=False)

    def work(self, batches: torch.Tensor) -> Work:
        return Work(len(batches), 0)

    def slow_feed(self, seconds: float) -> str:
        return "draw faster"

    def write_files(self, folder: Path) -> None:
        (folder / "weight.json").write_text(json.dumps(self.network.weight.tolist()))

    def read_files(self, folder: Path) -> None:
        """Read nothing."""


def params(**changes: object) -> TrainingLoopParams:
    """Return the parameters of a short training."""
    return TrainingLoopParams.model_validate(PARAMS | changes)


def workflow(job: LineJob) -> Workflow:
    """Return a workflow of one stage ``line`` that trains and commits the last checkpoint."""

    def run(context: Context) -> None:
        checkpoint = fit(context, job.params, train, job)
        curve = complete_curve(context, checkpoint)
        context.commit(
            files=[*files_of(context, checkpoint), *curve.files],
            numbers=branch_numbers(context.folder),
        )

    recipe = Recipe(name="toy", cluster=ClusterParams(num_cpus=3, object_store_mb=128))
    return Workflow(recipe, (Stage("line", run, job.params),))


def trace(traces: Path, step: int, rank: int) -> None:
    """Record that a worker has started a step."""
    with traces.open("a") as file:
        file.write(json.dumps([step, rank, os.getpid()]) + "\n")


def traced(traces: Path) -> list[tuple[int, int, int]]:
    """Return (step, rank, process id) of each step that was started."""
    return [tuple(json.loads(line)) for line in traces.read_text().splitlines()]


def slowly(traces: Path, step: int, rank: int) -> None:
    """Record a step and make it last."""
    trace(traces, step, rank)
    time.sleep(0.05)


def main() -> None:
    """Run the workflow once."""
    workdir, traces, changes = sys.argv[1:4]
    job = LineJob(params(**json.loads(changes)), before=partial(slowly, Path(traces)))
    workflow(job).run(Store(workdir), Console(file=sys.stdout, soft_wrap=True))


if __name__ == "__main__":
    main()
