"""Prediction of the normalized pixels of masked patches, as MAE trains it (arXiv:2111.06377).

The values of a patch are normalized by its own mean and standard deviation.
"""

import math
from typing import Final

import torch
from torch import Tensor

_EPS: Final = 1e-6


def normalized_patches(images: Tensor, num_patches: int) -> Tensor:
    """Return the normalized pixels of each patch, (B, N, P) of images (B, 3, H, W).

    The P values of a patch are ordered by row, column and channel. Mean and unbiased variance are
    those of all values of the patch.
    """
    grid = math.isqrt(num_patches)
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, grid, height // grid, grid, width // grid)
    patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, num_patches, -1)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + _EPS).sqrt()


def squared_error_sum(predicted: Tensor, targets: Tensor) -> tuple[Tensor, None, Tensor]:
    """Return the summed error, None for the correct predictions, and each row's error.

    The error of a row is the mean square over its values, in fp32 or wider; those of the rows,
    (M,), have no gradient.

    Args:
        predicted: (M, P), any floating-point type.
        targets: (M, P).
    """
    wide = torch.promote_types(predicted.dtype, torch.float32)
    errors = (predicted.to(wide) - targets).square().mean(dim=-1)
    return errors.sum(), None, errors.detach()
