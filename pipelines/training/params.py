"""Parameters that every training has; each training sets its own defaults.

A field's constraint and description live in an annotated type, because pydantic does not pass
them on to a subclass that changes the default.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from orchestration.params import OPERATIONAL
from orchestration.training import TrainingParams

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
        "num_workers; if that is a range, some workers may take more substreams than others.",
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
    "Number of consecutive non-finite steps that ends the training with an error."

    uneven_workers: ClassVar[bool] = False
    "Whether some workers may take more samples than others in a step."

    @model_validator(mode="after")
    def _workers_fit_substreams(self) -> Self:
        if self.min_workers < self.max_workers and self.uneven_workers:
            if self.max_workers > self.substreams:
                raise ValueError(
                    f"num_workers = {self.max_workers} is more than substreams = {self.substreams}"
                )
            return self  # Ray Train may take any number of the range
        for number in range(self.min_workers, self.max_workers + 1):
            if self.substreams % number:
                raise ValueError(
                    f"num_workers = {number} does not divide substreams = {self.substreams}"
                )
        return self
