"""AdamW and its schedule as the paper gives them."""

import math

import torch
from torch import nn

_NOT_DECAYED = ("positions", "pos_embed", "cls_token")


def cosine_lr(step: int, *, peak: float, floor: float, warmup: int, total: int) -> float:
    """Return the rate of ``step`` (from 0): linear warm-up, then a cosine down to ``floor``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def adamw(
    network: nn.Module, *, weight_decay: float, betas: tuple[float, float], eps: float
) -> torch.optim.AdamW:
    """Return AdamW; biases, norms, tokens and position tables are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        small = parameter.ndim < 2 or name.endswith(_NOT_DECAYED)
        (plain if small else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    fused = all(parameter.is_cuda for parameter in network.parameters())
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=fused)
