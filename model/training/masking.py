"""Masks: which tokens and patches are hidden, drawn from (seed, step, slot).

Counts are exact, so the normalization of a whole batch is known before the first forward.
Text follows BERT (15%; of those 80% [MASK], 10% a random piece, 10% left as they are). Patches
follow BEiT: blocks of bounded area and aspect until the count is reached.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.training import randomness

MASK_SHARE: Final = 0.8
RANDOM_SHARE: Final = 0.1
_ASPECT: Final = (0.3, 1 / 0.3)
_MIN_BLOCK_OF_196: Final = 16
_PROPOSALS: Final = 60

_CHOICE, _ACTION, _PIECE, _FILL = range(4)
"Purposes: the last element of a key, so that draws are independent."

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def num_masked_patches(num_patches: int, share: float) -> int:
    """Return the exact count of masked patches: BEiT's 75 on the 14 x 14 grid, else rounded."""
    if num_patches == 196 and share == 0.4:
        return 75
    return round(share * num_patches)


def mask_patches(grid: int, count: int, seed: int, step: int, slots: Ints) -> Bools:
    """Hide ``count`` patches of each sample, in blocks.

    Args:
        grid: patches along one side.
        count: patches to hide.
        seed: of the recipe and stream.
        step: of training.
        slots: (B,) places in the global batch.

    Returns:
        (B, N) bool, True = masked.
    """
    batch, num_patches = len(slots), grid * grid
    mask = np.zeros((batch, grid, grid), bool)
    left = np.full(batch, count)
    line = np.arange(grid)
    for attempt in range(_PROPOSALS):
        todo = np.flatnonzero(left > 0)
        if not len(todo):
            break
        u = randomness.uniform(
            seed, step, slots[todo, None], attempt, np.arange(4)[None, :], _CHOICE
        )
        top, first, height, width = propose_blocks(u, grid, smallest_block(grid), left[todo])
        in_rows = (line >= top[:, None]) & (line < (top + height)[:, None])
        in_columns = (line >= first[:, None]) & (line < (first + width)[:, None])
        block = in_rows[:, :, None] & in_columns[:, None, :]
        new = (block & ~mask[todo]).sum((1, 2))
        fits = (height < grid) & (width < grid) & (new > 0) & (new <= left[todo])
        chosen = todo[fits]
        mask[chosen] |= block[fits]
        left[chosen] -= new[fits]
    flat = mask.reshape(batch, num_patches)
    if (left > 0).any():  # no block fitted in time: single patches
        rank = randomness.uniform(seed, step, slots[:, None], np.arange(num_patches), _FILL)
        order = np.argsort(np.where(flat, 2.0, rank), axis=1).argsort(axis=1)
        flat |= order < left[:, None]
    return flat


def smallest_block(grid: int) -> int:
    """Return the patches of the smallest block: BEiT's 16 of 196, in proportion elsewhere."""
    return max(1, round(_MIN_BLOCK_OF_196 * grid * grid / 196))


def propose_blocks(
    u: NDArray[np.float64], grid: int, smallest: int, left: Ints
) -> tuple[Ints, Ints, Ints, Ints]:
    """Draw a block for each sample, as BEiT does: area, then aspect, then place.

    Args:
        u: (B, 4) in [0, 1): where in the range of area, aspect, row and column.
        grid: patches along one side.
        smallest: least area; less is drawn only where less is left.
        left: (B,) patches still to hide, the greatest area.

    Returns:
        (first row, first column, height, width), each (B,). A block may be too high or too wide
        for the grid: the caller leaves it out.
    """
    low = np.minimum(smallest, left)
    area = low + u[:, 0] * (left - low)
    aspect = np.exp(math.log(_ASPECT[0]) + u[:, 1] * math.log(_ASPECT[1] / _ASPECT[0]))
    height = np.maximum(np.rint(np.sqrt(area * aspect)), 1).astype(np.int64)
    width = np.maximum(np.rint(np.sqrt(area / aspect)), 1).astype(np.int64)
    top = (u[:, 2] * (grid - height + 1)).astype(np.int64)
    first = (u[:, 3] * (grid - width + 1)).astype(np.int64)
    return top, first, height, width


def mask_tokens(
    ids: Ints,
    maskable: Bools,
    share: float,
    pieces: tuple[int, int],
    mask_id: int,
    seed: int,
    step: int,
    slots: Ints,
) -> tuple[Ints, Bools]:
    """Corrupt texts for masked language modeling.

    Args:
        ids: (B, T).
        maskable: (B, T) bool, False at special tokens and padding.
        share: of the maskable tokens of a sample; at least one is taken where there is one.
        pieces: first and last id of real pieces, from which random replacements come.
        mask_id: id of [MASK].
        seed: of the recipe and stream.
        step: of training.
        slots: (B,) places in the global batch.

    Returns:
        (corrupted ids, bool mask of the tokens to predict), both (B, T).
    """
    place = np.arange(ids.shape[1])[None, :]
    key = (seed, step, slots[:, None], place)
    available = maskable.sum(1)
    count = np.where(available > 0, np.maximum(np.rint(share * available), 1), 0)
    rank = np.where(maskable, randomness.uniform(*key, _CHOICE), 2.0)
    chosen = rank.argsort(axis=1).argsort(axis=1) < count[:, None]
    action = randomness.uniform(*key, _ACTION)
    first, last = pieces
    replacement = first + randomness.integers(last - first + 1, *key, _PIECE)
    corrupted = np.where(action < MASK_SHARE, mask_id, ids)
    corrupted = np.where(action >= 1 - RANDOM_SHARE, replacement, corrupted)
    return np.where(chosen, corrupted, ids), chosen
