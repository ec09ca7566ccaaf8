"""Parameters that every training has; each training sets its own defaults.

A field's constraint and description live in an annotated type, because pydantic does not pass
them on to a subclass that changes the default.
"""

from typing import Annotated, Literal, Self

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
        description="Number of substreams that the data is divided into; a multiple of every "
        "num_workers to be used.",
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

    @model_validator(mode="after")
    def _workers_divide_substreams(self) -> Self:
        if self.substreams % self.num_workers:
            raise ValueError(
                f"num_workers = {self.num_workers} does not divide substreams = {self.substreams}"
            )
        return self
