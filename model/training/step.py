"""One optimizer step over the micro-batches of three streams.

The counts of masked positions are known from the masks, summed over workers once, and divide the
losses before the backward; gradients are then summed over workers. Nothing else is exchanged.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.network.beit3 import BEiT3
from model.training.batch import OBJECTIVES, MicroBatch, Objective
from model.training.objectives import predict

_BUCKET_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class StepResult:
    """What one step measured, over all workers."""

    loss: Mapping[Objective, float]
    accuracy: Mapping[Objective, float]
    gradient_norm: float
    skipped: bool
    "The gradient was not finite; the weights did not move."


def train_step(
    network: BEiT3,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[MicroBatch],
    *,
    rate: float,
    weights: Mapping[Objective, float],
    clip: float | None,
    autocast: torch.autocast,
) -> StepResult:
    """Take one step on this worker's micro-batches of the global batch.

    Args:
        network: same weights on every worker.
        optimizer: over the network's parameters.
        batches: this worker's share of the step, in any division.
        rate: learning rate of the step.
        weights: of the objectives in the sum.
        clip: largest norm of the gradient, or None.
        autocast: precision of the forward.
    """
    device = next(network.parameters()).device
    counts = torch.zeros(len(OBJECTIVES), dtype=torch.float64, device=device)
    for batch in batches:
        for objective, count in batch.counts().items():
            counts[OBJECTIVES.index(objective)] += count
    _sum_over_workers([counts])
    num_targets = counts.tolist()  # of the whole batch, known before the first forward

    optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(2, len(OBJECTIVES), dtype=torch.float64, device=device)
    with autocast:  # around all of them: weights are cast once for the step
        for batch in batches:
            predictions = predict(network, batch.to(device))
            total = torch.zeros((), device=device)
            for objective, prediction in predictions.items():
                i = OBJECTIVES.index(objective)
                total = total + prediction.loss_sum * (weights[objective] / max(num_targets[i], 1))
                sums[0, i] += prediction.loss_sum.detach().double()
                sums[1, i] += prediction.num_correct
            with torch.autocast(device.type, enabled=False):
                total.backward()
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _sum_over_workers([p.grad for p in network.parameters() if p.grad is not None])
    _sum_over_workers([sums])

    # After the sum every worker holds the same gradient, so all of them decide alike.
    norm = float(nn.utils.clip_grad_norm_(network.parameters(), clip or math.inf))
    skipped = not math.isfinite(norm)
    if not skipped:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    means = (sums / counts.clamp(min=1)).tolist()
    present = [i for i in range(len(OBJECTIVES)) if num_targets[i] > 0]
    return StepResult(
        loss={OBJECTIVES[i]: means[0][i] for i in present},
        accuracy={OBJECTIVES[i]: means[1][i] for i in present},
        gradient_norm=norm,
        skipped=skipped,
    )


def _sum_over_workers(tensors: Iterable[Tensor]) -> None:
    """Sum tensors over workers in place, in large buckets."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel()
        if size >= _BUCKET_ELEMENTS:
            _sum_bucket(bucket)
            bucket, size = [], 0
    if bucket:
        _sum_bucket(bucket)


def _sum_bucket(bucket: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
    dist.all_reduce(flat)
    start = 0
    for tensor in bucket:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()
