"""Masks of tokens and patches, drawn from (seed, step, slot).

The number of masked positions of a sample is exact, so the normalization of a whole batch is known
before the first forward. Tokens follow BERT (arXiv:1810.04805, section 3.1): a chosen token becomes
[MASK], a random piece, or stays. Patches follow the mask generator of BEiT and BEiT v2
(arXiv:2106.08254, algorithm 1; github.com/microsoft/unilm, beit2/masking_generator.py): blocks of
bounded area and aspect ratio until the count is reached or blocks are refused too often in a row.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.training import randomness

_MASK_FRACTION: Final = 0.8
"Fraction of the chosen tokens that become [MASK]."
_RANDOM_FRACTION: Final = 0.1
"Fraction of the chosen tokens that become a random piece; the rest stay."
_ASPECT: Final = (0.3, 1 / 0.3)
"Smallest and largest ratio of a block's height to its width."
_MIN_BLOCK_OF_196: Final = 16
"BEiT's smallest block area, in patches of a 14 x 14 grid."
_DRAWN_AHEAD: Final = 16
"Attempts whose random numbers are drawn at once, which costs hardly more than one attempt's."
_MAX_REFUSALS: Final = 10
"Refused blocks of a sample in a row after which single patches fill up the count."

_CHOICE, _ACTION, _PIECE, _FILL = range(4)
"Purposes of draws: the last element of a key, so that different draws are independent."

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def num_masked_patches(num_patches: int, ratio: float) -> int:
    """Return the number of masked patches of an image: BEiT's on its own grid, else rounded."""
    if num_patches == 196 and ratio == 0.4:
        return 75
    return round(ratio * num_patches)


def mask_patches(grid: int, count: int, seed: int, step: int, slots: Ints) -> Bools:
    """Mask ``count`` patches of each sample, in blocks.

    Args:
        grid: patches along one side of an image.
        count: number of patches to mask in each sample.
        seed: seed of the recipe and stream.
        step: optimizer step.
        slots: (B,) slots of the samples in the global batch.

    Returns:
        (B, N) bool, True = masked.
    """
    batch, num_patches = len(slots), grid * grid
    mask = np.zeros((batch, grid, grid), bool)
    left = np.full(batch, count)
    refusals = np.zeros(batch, np.int64)
    line = np.arange(grid)
    smallest, attempt = smallest_block(grid), 0
    while len(todo := np.flatnonzero((left > 0) & (refusals < _MAX_REFUSALS))):
        if attempt % _DRAWN_AHEAD == 0:
            attempts = np.arange(attempt, attempt + _DRAWN_AHEAD)[:, None]
            u = randomness.uniform(
                seed, step, slots[:, None, None], attempts, np.arange(4), _CHOICE
            )
        top, first, height, width = propose_blocks(
            u[todo, attempt % _DRAWN_AHEAD], grid, smallest, left[todo]
        )
        in_rows = (line >= top[:, None]) & (line < (top + height)[:, None])
        in_columns = (line >= first[:, None]) & (line < (first + width)[:, None])
        block = in_rows[:, :, None] & in_columns[:, None, :]
        new = (block & ~mask[todo]).sum((1, 2))
        fits = (height < grid) & (width < grid) & (new > 0) & (new <= left[todo])
        chosen = todo[fits]
        mask[chosen] |= block[fits]
        left[chosen] -= new[fits]
        refusals[todo] = np.where(fits, 0, refusals[todo] + 1)
        attempt += 1
    flat = mask.reshape(batch, num_patches)
    if (left > 0).any():
        rank = randomness.uniform(seed, step, slots[:, None], np.arange(num_patches), _FILL)
        order = np.argsort(np.where(flat, 2.0, rank), axis=1).argsort(axis=1)
        flat |= order < left[:, None]
    return flat


def smallest_block(grid: int) -> int:
    """Return the area of the smallest block in patches, in proportion to BEiT's."""
    return max(1, round(_MIN_BLOCK_OF_196 * grid * grid / 196))


def propose_blocks(
    u: NDArray[np.float64], grid: int, smallest: int, left: Ints
) -> tuple[Ints, Ints, Ints, Ints]:
    """Draw a block for each sample as BEiT does: its area, then aspect ratio, then location.

    Args:
        u: (B, 4) uniform numbers in [0, 1) for area, aspect ratio, row and column.
        grid: patches along one side of an image.
        smallest: one bound of the area in patches. It holds even if fewer patches are left: such a
            block fits only where it overlaps masked patches, which joins the blocks of a mask.
        left: (B,) patches still to mask: the other bound of the area.

    Returns:
        (first row, first column, height, width), each (B,). A block may be larger than the grid;
        the caller must drop it.
    """
    area = smallest + u[:, 0] * (left - smallest)
    aspect = np.exp(math.log(_ASPECT[0]) + u[:, 1] * math.log(_ASPECT[1] / _ASPECT[0]))
    height = np.maximum(np.rint(np.sqrt(area * aspect)), 1).astype(np.int64)
    width = np.maximum(np.rint(np.sqrt(area / aspect)), 1).astype(np.int64)
    top = (u[:, 2] * (grid - height + 1)).astype(np.int64)
    first = (u[:, 3] * (grid - width + 1)).astype(np.int64)
    return top, first, height, width


def mask_tokens(
    ids: Ints,
    maskable: Bools,
    ratio: float,
    pieces: tuple[int, int],
    mask_id: int,
    seed: int,
    step: int,
    slots: Ints,
) -> tuple[Ints, Bools]:
    """Mask tokens of texts for masked language modeling.

    Args:
        ids: (B, T) token ids.
        maskable: (B, T) bool, False at special tokens and padding.
        ratio: fraction of a sample's maskable tokens to choose; at least one is chosen if any
            is maskable.
        pieces: first and last id of the pieces from which random replacements are drawn.
        mask_id: id of [MASK].
        seed: seed of the recipe and stream.
        step: optimizer step.
        slots: (B,) slots of the samples in the global batch.

    Returns:
        (token ids after masking, bool mask with True = to be predicted), both (B, T).
    """
    available = maskable.sum(1)
    count = np.where(available > 0, np.maximum(np.rint(ratio * available), 1), 0)
    return mask_counted_tokens(ids, maskable, count, pieces, mask_id, seed, step, slots)


def mask_counted_tokens(
    ids: Ints,
    maskable: Bools,
    count: NDArray[np.number],
    pieces: tuple[int, int],
    mask_id: int,
    seed: int,
    step: int,
    slots: Ints,
) -> tuple[Ints, Bools]:
    """Do what :func:`mask_tokens` does for ``count``, (B,), maskable tokens of each text."""
    position = np.arange(ids.shape[1])[None, :]
    key = (seed, step, slots[:, None], position)
    rank = np.where(maskable, randomness.uniform(*key, _CHOICE), 2.0)
    chosen = rank.argsort(axis=1).argsort(axis=1) < count[:, None]
    action = randomness.uniform(*key, _ACTION)
    first, last = pieces
    replacement = first + randomness.integers(last - first + 1, *key, _PIECE)
    corrupted = np.where(action < _MASK_FRACTION, mask_id, ids)
    corrupted = np.where(action >= 1 - _RANDOM_FRACTION, replacement, corrupted)
    return np.where(chosen, corrupted, ids), chosen
