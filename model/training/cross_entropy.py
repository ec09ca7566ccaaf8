"""Cross-entropy over a large vocabulary, summed: logits are kept once, in the type they came in.

``torch.nn.functional.cross_entropy`` wants an fp32 copy of bf16 logits, makes a second for their
logarithms and two gradients. Here the forward goes through the logits some rows at a time, and the
backward turns them into their gradient where they lie. Sums and exponentials are fp32 all the same.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

_ON_A_CPU: Final = 1 << 20
"Logits taken at once: what a cache holds."
_ON_A_GPU: Final = 1 << 27
"The same: enough for it to be busy."


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy, fp32 or wider, and the number of correct guesses.

    The backward uses the logits' memory: nothing else may read them after it, and it runs once.

    Args:
        logits: (M, V), any float.
        targets: (M,) long.
    """
    loss_sum, num_correct = _CrossEntropySum.apply(logits, targets)
    return loss_sum, num_correct


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(logits.dtype, torch.float32)
        of_targets = logits.new_empty(len(targets), dtype=wide)
        num_correct = targets.new_zeros(())
        for rows in _chunks(logits):
            place = targets[rows][:, None]
            logarithms = torch.log_softmax(logits[rows], dim=-1, dtype=wide)
            of_targets[rows] = logarithms.gather(1, place)[:, 0]
            num_correct += (logits[rows].argmax(-1, keepdim=True) == place).sum()
        ctx.save_for_backward(targets, of_targets)
        ctx.logits = logits if ctx.needs_input_grad[0] else None
        ctx.mark_non_differentiable(num_correct)
        return -of_targets.sum(), num_correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        targets, of_targets = ctx.saved_tensors
        gradient, logits = gradients[0], ctx.logits
        if logits is None:
            raise RuntimeError("cross_entropy_sum has one backward: it used up the logits")
        ctx.logits = None
        scale = gradient.to(logits.dtype)
        # p - 1, from the logarithm: where a guess is good, p itself would leave few digits of it.
        at_target = (of_targets.expm1() * gradient).to(logits.dtype)
        for rows in _chunks(logits):
            logits[rows] = torch.softmax(logits[rows], dim=-1).mul_(scale)
            logits[rows].scatter_(1, targets[rows][:, None], at_target[rows][:, None])
        return logits, None


def _chunks(logits: Tensor) -> Iterator[slice]:
    at_once = _ON_A_CPU if logits.device.type == "cpu" else _ON_A_GPU
    size = max(at_once // logits.shape[1], 1)
    for start in range(0, len(logits), size):
        yield slice(start, start + size)
