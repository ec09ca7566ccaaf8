"""A network with the weights that a fine-tuning keeps beside it: their mean, and the best ones.

Both are parts of the module's state, so a checkpoint holds them and a training that goes on from it
gives the same result as one without a stop.
"""

import math
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class KeptWeights(nn.Module, Generic[N]):
    """A network, the exponential moving average of its weights, and its best weights so far."""

    network: N
    averaged: N | None
    best: N
    best_value: Tensor
    best_step: Tensor

    def __init__(self, network: N, ema_decay: float | None) -> None:
        """Keep copies of a network's weights.

        Args:
            network: the network that is trained.
            ema_decay: what a step leaves of the average; None keeps none.
        """
        super().__init__()
        self.network = network
        self.averaged = None if ema_decay is None else deepcopy(network).requires_grad_(False)
        self.best = deepcopy(network).requires_grad_(False)
        self.register_buffer("best_value", torch.tensor(-math.inf, dtype=torch.float64))
        self.register_buffer("best_step", torch.tensor(0))
        self._ema_decay = ema_decay

    @property
    def evaluated(self) -> N:
        """Return the network that is evaluated: the average if there is one."""
        return self.network if self.averaged is None else self.averaged

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average toward the weights, after a step that changed them."""
        if self.averaged is None or self._ema_decay is None:
            return
        mean: list[Tensor] = list(self.averaged.parameters())
        now: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(mean, now, 1 - self._ema_decay)

    @torch.no_grad()
    def keep_if_best(self, value: float, step: int) -> bool:
        """Keep the evaluated weights if no earlier value is as large; return whether they are.

        Args:
            value: of the metric; larger is better. NaN is never kept.
            step: number of steps done.
        """
        if not value > float(self.best_value):
            return False
        self.best.load_state_dict(self.evaluated.state_dict())
        self.best_value.fill_(value)
        self.best_step.fill_(step)
        return True
