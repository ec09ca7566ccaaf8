"""One optimizer step over the micro-batches of the three streams.

The numbers of masked positions are known from the masks; they are summed over workers once and
divide the losses before the backward. Gradients (``parallel.py``) are summed over workers, and in
one more exchange the losses, the correct predictions and the squared norms of the gradient. All
workers judge the step by these sums, so all of them take it or skip it alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from model.network.beit3 import BEiT3
from model.training import gradients, objectives
from model.training.batch import MicroBatch
from model.training.parallel import before_backward
from model.training.per_sample import PerSample, SampleWatch
from model.training.spikes import Spikes

Fault = Literal["loss", "gradient", "spike"]
"Why a step is skipped: a loss or the gradient is not finite, or a loss spikes."


@dataclass(frozen=True)
class StepResult:
    """The measurements of one step, over all workers."""

    loss: Mapping[str, float]
    "Mean loss per masked position, by objective."
    accuracy: Mapping[str, float]
    "Fraction of masked positions predicted correctly, by objective that predicts classes."
    grad_norm: float
    "Norm of the gradient before clipping."
    grad_norms: Mapping[str, float]
    "The same by part of the network (:data:`gradients.PARTS`)."
    fault: Fault | None
    "Why the weights were not updated; None if they were."
    samples: Sequence[PerSample] = ()
    "This worker's samples of each micro-batch, if the step was skipped."


def train_step(
    network: BEiT3,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[MicroBatch],
    *,
    lr: float,
    loss_weights: Mapping[str, float],
    max_grad_norm: float | None,
    autocast: torch.autocast,
    spikes: Spikes | None = None,
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
        spikes: judges the losses of the step; None does not look for spikes.
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
    watch = SampleWatch(network)
    with autocast, watch:  # around all micro-batches, so that weights are cast once per step
        for number, batch in enumerate(batches, start=1):
            before_backward(network, is_last=number == len(batches))
            watch.begin(batch)
            predictions = objectives.predict(network, batch.to(device))
            watch.add(predictions.values())
            total = torch.zeros((), device=device)
            for name, prediction in predictions.items():
                i = names.index(name)
                total = total + prediction.loss_sum * (loss_weights[name] / max(num_targets[i], 1))
                sums[0, i] += prediction.loss_sum.detach().double()
                if prediction.num_correct is not None:
                    sums[1, i] += prediction.num_correct
            with torch.autocast(device.type, enabled=False):
                total.backward()
    gradients.fill_missing(network)
    parts = gradients.parts_of(network)
    found = torch.cat([(sums / counts.clamp(min=1)).flatten(), gradients.squared_norms(network)])
    _sum_over_workers(found)
    losses, correct, squares = _split(found.tolist(), len(names), len(names), len(parts))
    present = [i for i in range(len(names)) if num_targets[i] > 0]
    loss = {names[i]: losses[i] for i in present}
    norm = math.sqrt(sum(squares))

    fault = _fault(loss, norm, spikes)
    if fault is None:
        if max_grad_norm is not None:
            gradients.clip(network, norm, max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    return StepResult(
        loss=loss,
        accuracy={names[i]: correct[i] for i in present if objectives.OBJECTIVES[i].has_accuracy},
        grad_norm=norm,
        grad_norms={part: math.sqrt(each) for part, each in zip(parts, squares, strict=True)},
        fault=fault,
        samples=() if fault is None else watch.read(),
    )


def _fault(loss: Mapping[str, float], norm: float, spikes: Spikes | None) -> Fault | None:
    """Judge a step by numbers that all workers have, so that all decide alike."""
    if not all(map(math.isfinite, loss.values())):
        return "loss"
    if not math.isfinite(norm):
        return "gradient"
    return "spike" if spikes is not None and spikes.judge(loss) else None


def _split(values: list[float], *sizes: int) -> list[list[float]]:
    rest = iter(values)
    return [[next(rest) for _ in range(size)] for size in sizes]


def _sum_over_workers(tensor: Tensor) -> None:
    """Sum a tensor over workers, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
