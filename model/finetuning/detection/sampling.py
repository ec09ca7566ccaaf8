"""Which boxes of an image are trained on: a random part, as a pure function of the image's seed."""

import numpy as np
import torch
from torch import Tensor

from model.training import randomness


def sample(
    is_positive: Tensor, is_negative: Tensor, number: int, most: int, seed: int, purpose: int
) -> Tensor:
    """Draw boxes of an image, positive ones first; return their indexes.

    Args:
        is_positive: (n,) bool.
        is_negative: (n,) bool; boxes that are neither are never drawn.
        number: boxes to draw; fewer are returned if there are fewer.
        most: largest number of positive ones.
        seed: of the image in this step.
        purpose: number of the use; each has draws of its own.
    """
    keys = torch.from_numpy(randomness.uniform(seed, purpose, np.arange(len(is_positive))))
    keys = keys.to(is_positive.device)
    positive = _first(is_positive, keys, most)
    return torch.cat([positive, _first(is_negative, keys, number - len(positive))])


def _first(mask: Tensor, keys: Tensor, number: int) -> Tensor:
    indexes = mask.nonzero()[:, 0]
    return indexes[keys[indexes].argsort()[:number]]
