"""The symmetric contrastive loss over the batch of all workers (paper, appendix A).

Each image is compared with the texts of all workers, and each text with all images; its own
partner is the right answer. Gradients reach the features of every worker. The loss of a worker is
its part of the mean over the global batch, so gradients are summed over workers, not averaged.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class _Gathered(torch.autograd.Function):
    """All workers' rows in the order of the workers; the gradient is summed over workers."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gathered(mine: Tensor) -> Tensor:
    """Return the rows (W * B, D) of all workers from this worker's (B, D); all have equal B."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return mine
    everyone: Tensor = _Gathered.apply(mine)
    return everyone


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Return this worker's part of the mean loss over the global batch; the parts add up to it.

    Args:
        images: (B, D) float, features of length 1 of this worker's images.
        texts: (B, D) float, features of length 1 of their texts, in the same order.
        logit_scale: scalar, logarithm of the factor of the scores.
    """
    all_images, all_texts = gathered(images), gathered(texts)
    first = len(images) * (dist.get_rank() if len(all_images) > len(images) else 0)
    partner = torch.arange(first, first + len(images), device=images.device)
    scale = logit_scale.exp()
    to_text = F.cross_entropy(scale * images @ all_texts.T, partner, reduction="sum")
    to_image = F.cross_entropy(scale * texts @ all_images.T, partner, reduction="sum")
    return (to_text + to_image) / (2 * len(all_images))
