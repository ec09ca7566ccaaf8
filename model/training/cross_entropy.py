"""Summed cross-entropy over a large vocabulary, with one copy of the logits in their own type.

``torch.nn.functional.cross_entropy`` needs an fp32 copy of bf16 logits, another copy for the
log-probabilities, and two gradients. Here the forward reads the logits in chunks of rows, and the
backward overwrites the logits with their gradient. Sums and exponentials are fp32.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

_CPU_CHUNK: Final = 1 << 20
"Number of logits in a chunk on a CPU: few enough for its cache."
_GPU_CHUNK: Final = 1 << 27
"Number of logits in a chunk on a GPU: enough to occupy it."


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed cross-entropy, whether each row is correct, and each row's loss.

    A row is correct, (M,) bool, if its largest logit is the target's. Losses are fp32 or wider;
    those of the rows, (M,), have no gradient. The backward overwrites the logits: nothing else may
    read them afterwards, and it runs once.

    Args:
        logits: (M, V), any floating-point type.
        targets: (M,) long.
    """
    loss_sum, is_correct, losses = _CrossEntropySum.apply(logits, targets)
    return loss_sum, is_correct, losses


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(logits.dtype, torch.float32)
        of_targets = logits.new_empty(len(targets), dtype=wide)
        is_correct = torch.empty_like(targets, dtype=torch.bool)
        for rows in _chunks(logits):
            wanted = targets[rows][:, None]
            logarithms = torch.log_softmax(logits[rows], dim=-1, dtype=wide)
            of_targets[rows] = logarithms.gather(1, wanted)[:, 0]
            is_correct[rows] = logits[rows].argmax(-1) == targets[rows]
        ctx.save_for_backward(targets, of_targets)
        ctx.logits = logits if ctx.needs_input_grad[0] else None
        losses = -of_targets
        ctx.mark_non_differentiable(is_correct, losses)
        return losses.sum(), is_correct, losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        targets, of_targets = ctx.saved_tensors
        gradient, logits = gradients[0], ctx.logits
        if logits is None:
            raise RuntimeError(
                "cross_entropy_sum has one backward: the first one overwrote the logits"
            )
        ctx.logits = None
        scale = gradient.to(logits.dtype)
        # p - 1 by expm1 of log p: if p is near 1, subtracting 1 from p would lose its digits.
        at_target = (of_targets.expm1() * gradient).to(logits.dtype)
        for rows in _chunks(logits):
            logits[rows] = torch.softmax(logits[rows], dim=-1).mul_(scale)
            logits[rows].scatter_(1, targets[rows][:, None], at_target[rows][:, None])
        return logits, None


def _chunks(logits: Tensor) -> Iterator[slice]:
    chunk = _CPU_CHUNK if logits.device.type == "cpu" else _GPU_CHUNK
    size = max(chunk // logits.shape[1], 1)
    for start in range(0, len(logits), size):
        yield slice(start, start + size)
