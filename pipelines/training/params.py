"""Parameters that every training has; each training sets its own defaults.

A field's constraint and description live in an annotated type, because pydantic does not pass
them on to a subclass that changes the default.
"""

import math
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from orchestration.params import OPERATIONAL
from orchestration.training import TrainingParams

MAX_TRACED_STEPS: Final = 20
"Steps in a trace of the profiler; a step of a large network takes some megabytes."

Lr = Annotated[float, Field(gt=0, description="Peak learning rate, reached after warm-up.")]
MinLr = Annotated[
    float, Field(ge=0, description="Learning rate at the end of the cosine schedule.")
]
WarmupSteps = Annotated[
    int, Field(ge=0, description="Number of steps in which the learning rate rises linearly.")
]
WeightDecay = Annotated[
    float, Field(ge=0, description="AdamW weight decay; biases and norms are not decayed.")
]
Substreams = Annotated[
    int,
    Field(
        ge=1,
        description="Number of substreams that the data is divided into; a multiple of "
        "num_workers, or of each number if that is a range.",
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16"], Field(description="Data type of the forward and backward pass.")
]


class TrainingLoopParams(TrainingParams):
    """Base of the parameters of a training."""

    lr: Lr
    min_lr: MinLr
    warmup_steps: WarmupSteps
    weight_decay: WeightDecay
    substreams: Substreams
    precision: Precision = "bf16"
    log_every: Annotated[int, OPERATIONAL] = Field(default=10, ge=1)
    "Number of steps over which recorded metrics are averaged, in MLflow and in the history."
    max_skipped_steps: Annotated[int, OPERATIONAL] = Field(default=10, ge=1)
    "Number of consecutive skipped steps that ends the training with an error."

    uneven_workers: ClassVar[bool] = False
    "Whether some workers may take more samples than others in a step."
    profile_steps: Annotated[tuple[int, int] | None, OPERATIONAL] = None
    "First and last step of a trace by torch's profiler, counted from 1; null makes none."

    @model_validator(mode="after")
    def _schedule_falls_after_warmup(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr = {self.min_lr:g} is more than lr = {self.lr:g}; lower min_lr or raise lr"
            )
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} is more than steps = {self.steps}; lower "
                "warmup_steps"
            )
        return self

    @model_validator(mode="after")
    def _trace_is_short(self) -> Self:
        if self.profile_steps is not None:
            first, last = self.profile_steps
            if not 1 <= first <= last < first + MAX_TRACED_STEPS:
                raise ValueError(
                    f"profile_steps = [{first}, {last}] is no range of 1 to {MAX_TRACED_STEPS} "
                    "steps, counted from 1"
                )
        return self

    @model_validator(mode="after")
    def _workers_fit_substreams(self) -> Self:
        if self.min_workers < self.max_workers and self.uneven_workers:
            if self.max_workers > self.substreams:
                raise ValueError(
                    f"num_workers = {self.max_workers} is more than substreams = "
                    f"{self.substreams}; change one of them"
                )
            return self  # Ray Train may take any number of the range
        for number in range(self.min_workers, self.max_workers + 1):
            if self.substreams % number:
                raise ValueError(
                    f"num_workers = {number} does not divide substreams = {self.substreams}; "
                    "change one of them"
                )
        return self

    def check_substreams(self, **batches: int) -> None:
        """Check that batches take equally many samples of every substream.

        Args:
            batches: number of samples in a step by the name of its parameter.

        Raises:
            ValueError: one does not; the message names the largest number that fits, also to the
                workers if there is one.
        """
        common = math.gcd(*batches.values())
        for name, number in batches.items():
            if number % self.substreams:
                fits = [n for n in range(1, self.substreams) if common % n == 0]
                workers = math.lcm(*range(self.min_workers, self.max_workers + 1))
                best = max(fits, key=lambda n: (n % workers == 0, n))
                raise ValueError(
                    f"{name} = {number} is not a multiple of substreams = {self.substreams}; "
                    f"set substreams={best}"
                )
