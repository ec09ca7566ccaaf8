"""Loss and gradient of each sample of a step, by which a skipped step names its samples.

Both stay on the device, a few numbers for each sample, and are read after a step was skipped. The
gradient of a sample is that of its embedded image and text: each sample has its own rows there,
and whatever is not finite behind them reaches them in the backward. Inputs that are not finite are
found in the micro-batches themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from model.network.beit3 import BEiT3
from model.training.batch import MicroBatch
from model.training.objectives import Prediction


@dataclass(frozen=True)
class PerSample:
    """The samples of one micro-batch, in host memory."""

    loss: Tensor
    "(B,) float64, mean cross-entropy over the masked positions of all objectives; 0 without any."
    is_finite: Tensor
    "(B,) bool, whether the sample's inputs, loss and gradient are finite."


@dataclass
class _Watched:
    batch: MicroBatch
    losses: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    "Sample and loss of each masked position, (M,) each, of each objective."
    gradients: list[Tensor] = field(default_factory=list)
    "(B,) sums of the gradient at the embedded image and text."

    def read(self) -> PerSample:
        number = self.batch.num_samples
        loss, count = torch.zeros(2, number, dtype=torch.float64)
        is_finite = torch.ones(number, dtype=torch.bool)
        for samples, losses in self.losses:
            loss.index_add_(0, samples.cpu(), losses.double().cpu())
            count += torch.bincount(samples.cpu(), minlength=number)
        if self.batch.images is not None:
            is_finite &= self.batch.images.flatten(1).isfinite().all(1).cpu()
        if self.batch.residual_scale is not None:
            is_finite &= self.batch.residual_scale.flatten(0, -2).isfinite().all(0).cpu()
        for gradient in self.gradients:
            is_finite &= gradient.cpu().isfinite()
        return PerSample(loss / count.clamp(min=1), is_finite & loss.isfinite())


class SampleWatch:
    """Notes the losses and gradients of samples while it is entered."""

    def __init__(self, network: BEiT3) -> None:
        self._network = network
        self._found: list[_Watched] = []

    def __enter__(self) -> Self:
        embeddings = (self._network.vision, self._network.language)
        self._hooks = [module.register_forward_hook(self._watch) for module in embeddings]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def begin(self, batch: MicroBatch) -> None:
        """Begin a micro-batch: call it before the forward."""
        self._found.append(_Watched(batch))

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Add the predictions of the micro-batch."""
        self._found[-1].losses += [(made.samples, made.losses) for made in predictions]

    def read(self) -> tuple[PerSample, ...]:
        """Return the samples of each micro-batch; this waits for the device."""
        return tuple(found.read() for found in self._found)

    def _watch(self, module: torch.nn.Module, args: Any, embedded: Tensor) -> None:
        gradients = self._found[-1].gradients
        if embedded.requires_grad:
            embedded.register_hook(
                lambda gradient: gradients.append(gradient.detach().flatten(1).sum(1))
            )
