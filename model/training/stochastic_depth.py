"""Stochastic depth: the residual branches a sample skips, drawn from (seed, step, slot)."""

import numpy as np
from numpy.typing import NDArray

from model.training import randomness


def residual_scale(
    depth: int, rate: float, seed: int, step: int, slots: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """Return the factors of the residual branches, or None if ``rate`` is 0.

    The probability of skipping grows linearly from 0 in the first block to ``rate`` in the last, as
    in BEiT. The kept branches are scaled up, so that their mean is unchanged.

    Args:
        depth: number of blocks.
        rate: probability of skipping a branch of the last block.
        seed: seed of the recipe and stream.
        step: optimizer step.
        slots: (B,) slots of the samples in the global batch.

    Returns:
        (depth, 2, B): 0 for a skipped branch, 1 / (1 - probability) for a kept one.
    """
    if rate == 0:
        return None
    layers = np.arange(depth)
    drop = (rate * layers / max(depth - 1, 1))[:, None, None]
    u = randomness.uniform(
        seed, step, slots[None, None, :], layers[:, None, None], np.arange(2)[None, :, None]
    )
    return np.where(u < drop, 0.0, 1.0 / (1.0 - drop)).astype(np.float32)
