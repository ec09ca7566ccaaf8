"""AdamW and the learning-rate schedule of the paper."""

import math

import torch
from torch import nn

_NOT_DECAYED = ("positions", "pos_embed", "cls_token")


def cosine_lr(step: int, *, lr: float, min_lr: float, warmup_steps: int, steps: int) -> float:
    """Return the learning rate of ``step``: linear warm-up, then a cosine decay.

    Args:
        step: number of steps taken before this one.
        lr: peak, reached at the end of the warm-up.
        min_lr: learning rate at the end.
        warmup_steps: steps of the warm-up.
        steps: steps of the whole training.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    progress = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def adamw(
    network: nn.Module, *, weight_decay: float, betas: tuple[float, float], eps: float
) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices alone.

    Biases, LayerNorms, class and mask tokens and position tables are not decayed.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        small = parameter.ndim < 2 or name.endswith(_NOT_DECAYED)
        (plain if small else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    # Without `fused`, a step on CPUs takes a dozen operations per parameter, one after another.
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)
