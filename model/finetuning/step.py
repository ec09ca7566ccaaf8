"""One optimizer step of a fine-tuning, on the workers' copies of the network.

A task adds its part of the gradient of the mean loss over the global batch; gradients and sums are
added up over the workers once, after the last backward. All workers judge the step by the same
sums, so all of them take it or skip it alike.

A task may not use a part of the network, as GLUE does not use that of images. Such parameters are
not decayed either, so that the result can still be the start of another task.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET_BYTES: Final = 64 << 20
"Gradients that are added up in one exchange."


@dataclass(frozen=True)
class FinetuneStep:
    """The measurements of one step, over all workers."""

    means: Mapping[str, float]
    "Mean over the examples of each sum of the task; ``loss`` is one of them."
    grad_norm: float
    "Norm of the gradient before clipping."
    skipped: bool
    "Loss or gradient was not finite and no weight changed."


def finetune_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    backward: Callable[[], Mapping[str, Tensor]],
    *,
    lr: float,
    num_examples: int,
    max_grad_norm: float | None,
) -> FinetuneStep:
    """Take one step.

    Args:
        network: this worker's copy.
        optimizer: over its parameters; each group has ``lr_scale`` (``layer_decay.py``).
        backward: adds this worker's part of the gradient of the mean loss and returns its sums
            over examples by name; the names are the same on every worker.
        lr: learning rate of the step.
        num_examples: examples in the batch of all workers.
        max_grad_norm: norm to which a larger gradient is scaled down; None does not clip.
    """
    optimizer.zero_grad(set_to_none=True)
    sums = backward()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    used = [float(parameter.grad is not None) for parameter in trained]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    _sum_over_workers(gradients)
    names = sorted(sums)
    mine = [*(float(sums[name]) for name in names), *used]
    total = torch.tensor(mine, dtype=torch.float64, device=gradients[0].device)
    _sum_over_workers([total])
    means = dict(zip(names, (total[: len(names)] / num_examples).tolist(), strict=True))
    norm = float(nn.utils.get_total_norm(gradients))
    skipped = not (math.isfinite(norm) and math.isfinite(means["loss"]))
    if not skipped:
        if max_grad_norm is not None and norm > max_grad_norm:
            torch._foreach_mul_(gradients, max_grad_norm / (norm + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        counts = total[len(names) :].tolist()
        unused = [each for each, number in zip(trained, counts, strict=True) if not number]
        _step_without(optimizer, unused)
    return FinetuneStep(means, norm, skipped)


def _step_without(optimizer: torch.optim.Optimizer, unused: list[nn.Parameter]) -> None:
    """Take a step of the other parameters."""
    for parameter in unused:
        parameter.grad = None
    optimizer.step()
    if not (new := [parameter for parameter in unused if parameter not in optimizer.state]):
        return
    # A checkpoint holds a state for every parameter: a step with a rate of 0 makes it.
    optimizer.zero_grad(set_to_none=True)
    for parameter in new:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _sum_over_workers(tensors: list[Tensor]) -> None:
    """Add tensors up over the workers, in place and several in one exchange."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.nbytes for each in bucket) >= _BUCKET_BYTES:
            _sum_bucket(bucket)
            bucket = []
    if bucket:
        _sum_bucket(bucket)


def _sum_bucket(bucket: list[Tensor]) -> None:
    flat = torch.cat([tensor.flatten() for tensor in bucket])
    dist.all_reduce(flat)
    for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
        tensor.copy_(part.view_as(tensor))
