"""Training for captions: which tokens are masked, the loss of each, and which losses count.

A caption's tokens are masked as in pretraining and predicted by sequence-to-sequence attention. The
loss is the Kullback-Leibler divergence from a smoothed target. Late in the training the authors
drop the largest losses of a batch, which belong mostly to captions that say what no image shows.
Here they are dropped over the batch of all workers, so that the gradient depends neither on the
number of workers nor on micro-batches.
"""

import math

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from model.finetuning.task_networks import FIRST_PIECE
from model.training.masking import Bools, Ints, mask_counted_tokens

_MAX_TEXT: int = 1 << 16
"More tokens than a text has."


def mask_captions(
    ids: Ints,
    padding: Bools,
    ratio: float,
    mask_id: int,
    seed: int,
    step: int,
    slots: Ints,
) -> tuple[Ints, Bools]:
    """Mask tokens of captions; ``</s>`` too, so that the network learns where a caption ends.

    Of n tokens, the special ones included, ``ratio * n`` are chosen, rounded half up: at least one,
    and never ``<s>``. A chosen token becomes [MASK] (80%), a random piece (10%), or stays.

    Args:
        ids: (B, T) token ids with ``<s>`` and ``</s>``.
        padding: (B, T) bool, True = padded.
        ratio: fraction of the tokens to choose.
        mask_id: id of [MASK], which follows the last piece.
        seed: of the draws.
        step: of the training.
        slots: (B,) slots of the captions in the global batch.

    Returns:
        (token ids after masking, bool mask with True = to be predicted), both (B, T).
    """
    maskable = ~padding
    length = maskable.sum(1)
    maskable[:, 0] = False
    count = np.clip(np.floor(ratio * length + 0.5), 1, np.maximum(length - 1, 0))
    pieces = (FIRST_PIECE, mask_id - 1)
    return mask_counted_tokens(ids, maskable, count, pieces, mask_id, seed, step, slots)


def caption_losses(scores: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the loss (M,) of each token: the divergence of its scores from the smoothed target.

    The target has ``1 - label_smoothing`` at the token; the rest is spread evenly over the others.

    Args:
        scores: (M, V), any floating-point type; losses are fp32 or wider.
        targets: (M,) long.
        label_smoothing: from 0 to below 1.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    num_classes = scores.shape[1]
    other = label_smoothing / (num_classes - 1)
    logsumexp = scores.logsumexp(dim=1)
    at_target = scores.gather(1, targets[:, None])[:, 0] - logsumexp
    losses = -(1 - label_smoothing) * at_target
    if label_smoothing == 0:
        return losses
    everywhere = scores.sum(dim=1) - num_classes * logsumexp
    entropy = -(1 - label_smoothing) * math.log1p(-label_smoothing) - label_smoothing * math.log(
        other
    )
    return losses - other * (everywhere - at_target) - entropy


@torch.no_grad()
def kept_tokens(
    losses: Tensor, slots: Tensor, positions: Tensor, drop_ratio: float
) -> tuple[Tensor, Tensor]:
    """Drop the tokens with the largest losses of all workers; every worker must call it.

    Of M tokens on all workers the ``int(M * (1 - drop_ratio))`` smallest losses are kept, at least
    one; of equal ones those of the first slots, then of the first positions. If a loss is not
    finite, all tokens are kept, so that the step is seen to have failed.

    Args:
        losses: (M',) of this worker's tokens, in any order.
        slots: (M',) long, slot of each token's caption in the global batch.
        positions: (M',) long, position of each token in its caption.
        drop_ratio: from 0 to below 1.

    Returns:
        ((M',) bool, which of this worker's tokens are kept; long scalar, kept tokens of all
        workers, by which the sum of their losses is divided.)
    """
    place = slots.long() * _MAX_TEXT + positions.long()
    all_losses, all_places = _gathered(losses.detach().double(), place)
    total = len(all_losses)
    if drop_ratio == 0 or not bool(all_losses.isfinite().all()):
        return torch.ones_like(losses, dtype=torch.bool), place.new_tensor(total)
    number = max(int(total * (1 - drop_ratio)), 1)
    by_place = all_places.argsort()
    order = by_place[all_losses[by_place].argsort(stable=True)]
    kept = all_places[order[:number]]
    return torch.isin(place, kept), place.new_tensor(number)


def _gathered(losses: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens of all workers, whose numbers may differ."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return losses, places
    size = torch.tensor([len(losses)], device=losses.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    numbers = [int(each) for each in sizes]
    return _padded(losses, numbers), _padded(places, numbers)


def _padded(mine: Tensor, numbers: list[int]) -> Tensor:
    sent = mine.new_zeros(max(numbers))
    sent[: len(mine)] = mine
    parts = [torch.empty_like(sent) for _ in numbers]
    dist.all_gather(parts, sent)
    return torch.cat([part[:number] for part, number in zip(parts, numbers, strict=True)])
