"""One optimizer step over the micro-batches of the three streams.

The numbers of masked positions are known from the masks; they are summed over workers once and
divide the losses before the backward. Gradients (``parallel.py``) and the sums for the metrics are
then summed over workers. Nothing else is exchanged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.network.beit3 import BEiT3
from model.training import objectives
from model.training.batch import MicroBatch
from model.training.parallel import before_backward, whole


@dataclass(frozen=True)
class StepResult:
    """The measurements of one step, over all workers."""

    loss: Mapping[str, float]
    "Mean cross-entropy per masked position, by objective."
    accuracy: Mapping[str, float]
    "Fraction of masked positions predicted correctly, by objective."
    grad_norm: float
    "Norm of the gradient before clipping."
    skipped: bool
    "Whether the gradient was not finite, so that the weights were not updated."


def train_step(
    network: BEiT3,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[MicroBatch],
    *,
    lr: float,
    loss_weights: Mapping[str, float],
    max_grad_norm: float | None,
    autocast: torch.autocast,
) -> StepResult:
    """Take one step on this worker's micro-batches of the global batch.

    Args:
        network: the network, spread over the workers by :func:`parallel.distribute`.
        optimizer: an optimizer of the network's parameters.
        batches: this worker's micro-batches; how its samples are divided has no effect.
        lr: learning rate of the step.
        loss_weights: factor of each objective's mean loss in the total, by its name.
        max_grad_norm: norm to which a larger gradient is scaled down; None does not clip.
        autocast: precision of the forward.
    """
    device = next(network.parameters()).device
    names = [objective.name for objective in objectives.OBJECTIVES]
    counts = torch.zeros(len(names), dtype=torch.float64, device=device)
    for batch in batches:
        for name, count in objectives.num_predictions(batch).items():
            counts[names.index(name)] += count
    _sum_over_workers(counts)
    num_targets = counts.tolist()  # of the global batch, known before the first forward

    optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(2, len(names), dtype=torch.float64, device=device)
    with autocast:  # around all micro-batches, so that weights are cast once per step
        for number, batch in enumerate(batches, start=1):
            before_backward(network, is_last=number == len(batches))
            predictions = objectives.predict(network, batch.to(device))
            total = torch.zeros((), device=device)
            for name, prediction in predictions.items():
                i = names.index(name)
                total = total + prediction.loss_sum * (loss_weights[name] / max(num_targets[i], 1))
                sums[0, i] += prediction.loss_sum.detach().double()
                sums[1, i] += prediction.num_correct
            with torch.autocast(device.type, enabled=False):
                total.backward()
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _sum_over_workers(sums)

    # The norm is that of the summed gradient, so all workers decide alike.
    norm = float(whole(nn.utils.clip_grad_norm_(network.parameters(), max_grad_norm or math.inf)))
    skipped = not math.isfinite(norm)
    if not skipped:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    means = (sums / counts.clamp(min=1)).tolist()
    present = [i for i in range(len(names)) if num_targets[i] > 0]
    return StepResult(
        loss={names[i]: means[0][i] for i in present},
        accuracy={names[i]: means[1][i] for i in present},
        grad_norm=norm,
        skipped=skipped,
    )


def _sum_over_workers(tensor: Tensor) -> None:
    """Sum a tensor over workers, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
