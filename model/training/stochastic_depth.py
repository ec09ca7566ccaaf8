"""Stochastic depth: which samples skip which residual branch, drawn from (seed, step, slot)."""

import numpy as np
from numpy.typing import NDArray

from model.training import randomness


def residual_scale(
    depth: int, rate: float, seed: int, step: int, slots: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """Return (depth, 2, B): 0 where a branch is skipped, 1 / keep elsewhere; None for rate 0.

    The rate grows linearly from 0 in the first layer to ``rate`` in the last, as in BEiT.
    """
    if rate == 0:
        return None
    layers = np.arange(depth)
    drop = (rate * layers / max(depth - 1, 1))[:, None, None]
    u = randomness.uniform(
        seed, step, slots[None, None, :], layers[:, None, None], np.arange(2)[None, :, None]
    )
    return np.where(u < drop, 0.0, 1.0 / (1.0 - drop)).astype(np.float32)
