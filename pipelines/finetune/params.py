"""Parameters of fine-tuning and of prediction; defaults are the authors' for the base size."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from model.network.config import Recomputing
from orchestration.actor_params import ActorParams
from orchestration.params import OPERATIONAL
from pipelines.finetune.views import AugmentParams
from pipelines.training.params import (
    Lr,
    MinLr,
    TrainingLoopParams,
    WeightDecay,
)

Epochs = Annotated[float, Field(ge=0)]
_Beta = Annotated[float, Field(ge=0, lt=1)]


class FinetuneParams(TrainingLoopParams):
    """The training of a task's network."""

    epochs: Epochs = 10
    "Number of epochs of the training split if `steps` is 0; 0 evaluates the weights as they are."
    warmup_epochs: Epochs = 1
    "Number of epochs in which the learning rate rises linearly, if `steps` is 0."
    steps: int = Field(default=0, ge=0)
    "Number of optimizer steps, instead of `epochs` and `warmup_epochs`; 0 takes these."
    warmup_steps: int = Field(default=0, ge=0)
    "Number of optimizer steps in which the learning rate rises linearly, if `steps` is given."
    batch_size: int = Field(default=128, ge=1)
    "Number of samples in a step, over all workers: of examples, in retrieval of captions."
    substreams: int = Field(default=8, ge=1)
    "Number of substreams of the data; a multiple of num_workers that divides batch_size."
    shuffle_window: int = Field(default=32, ge=1)
    "Number of row groups in a substream that are shuffled together."
    lr: Lr = 3e-5
    min_lr: MinLr = 1e-6
    weight_decay: WeightDecay = 0.01
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    "Decay rates of AdamW's moving averages."
    eps: float = Field(default=1e-8, ge=0)
    "AdamW's epsilon."
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    "Factor of the learning rate from one block to the block below it; 1 trains all alike."
    head_lr_factor: float = Field(default=1.0, gt=0)
    "Factor of the learning rate of the head."
    max_grad_norm: float | None = Field(default=None, gt=0)
    "Norm to which larger gradients are scaled down; null does not limit it."
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    "Stochastic depth rate of the last block; earlier blocks have proportionally smaller rates."
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    "What a step leaves of the moving average of the weights, which is then the result; or null."
    augment: AugmentParams = AugmentParams()
    "How the images of the training split are changed."
    evaluations: int = Field(default=10, ge=1)
    "Number of evaluations of the dev split, at equal distances; the best weights are the result."
    micro_batch: Annotated[int, OPERATIONAL] = Field(default=32, ge=1)
    "Number of examples in a forward pass of a worker."
    compile: Annotated[bool, OPERATIONAL] = False
    "Compile the blocks with torch.compile: minutes at the start, faster steps on a GPU."
    activation_checkpointing: Annotated[Recomputing, OPERATIONAL] = "none"
    "Compute again in the backward: nothing, what costs little (selective), or every block (full)."

    @model_validator(mode="after")
    def _substreams_divide_the_batch(self) -> Self:
        self.check_substreams(batch_size=self.batch_size)
        return self

    @model_validator(mode="after")
    def _epochs_hold_the_warmup(self) -> Self:
        if not self.steps and 0 < self.epochs < self.warmup_epochs:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs:g} is more than epochs = {self.epochs:g}; "
                "lower warmup_epochs"
            )
        return self

    def in_steps(self, num_samples: int) -> Self:
        """Return the parameters with the number of steps that ``num_samples`` in an epoch give."""
        if self.steps:
            return self
        per_epoch = num_samples / self.batch_size
        steps = int(self.epochs * per_epoch) or int(self.epochs > 0)
        return self.model_copy(
            update={"steps": steps, "warmup_steps": int(self.warmup_epochs * per_epoch)}
        )

    def is_evaluated_after(self, step: int) -> bool:
        """Return whether the dev split is evaluated after so many of ``steps`` steps."""
        number = min(self.evaluations, self.steps)
        return step * number // self.steps > (step - 1) * number // self.steps


class PredictParams(ActorParams):
    """The predictions for a split, from which its score is computed."""

    batch_size: Annotated[int, OPERATIONAL] = Field(default=64, ge=1)
    "Number of examples in a forward pass."
    precision: Literal["fp32", "bf16"] = "fp32"
    "Data type of the forward pass."
    slice_rows: int = Field(default=512, ge=1)
    "Number of examples in a slice."
