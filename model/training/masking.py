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
_LOG_ASPECTS: Final = math.log(0.3), math.log(1 / 0.3 / 0.3)
"Logarithm of the smallest ratio of a block's height to its width, and of the largest to that."
_MIN_BLOCK_OF_196: Final = 16
"BEiT's smallest block area, in patches of a 14 x 14 grid."
_DRAWN_AHEAD: Final = 8
"Attempts whose random numbers are drawn at once, which costs hardly more than one attempt's."
MAX_GRID: Final = 64
"Patches along one side of an image, at most: a row is a number of 64 bits."
_ONE: Final = np.uint64(1)
_MAX_REFUSALS: Final = 10
"Refused blocks of a sample in a row after which single patches fill up the count."

_CHOICE, _ACTION, _PIECE, _FILL = range(4)
"Purposes of draws: the last element of a key, so that different draws are independent."

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


def num_masked_patches(num_patches: int, ratio: float) -> int:
    """Return the number of masked patches of an image: BEiT's on its own grid, else rounded."""
    if num_patches == 196 and ratio == 0.4:
        return 75
    return round(ratio * num_patches)


def mask_patches(grid: int, count: int, seed: int, step: int, slots: Ints) -> Bools:
    """Mask ``count`` patches of each sample, in blocks.

    Args:
        grid: patches along one side of an image, at most ``MAX_GRID``.
        count: number of patches to mask in each sample.
        seed: seed of the recipe and stream.
        step: optimizer step.
        slots: (B,) slots of the samples in the global batch.

    Returns:
        (B, N) bool, True = masked.

    Raises:
        ValueError: the grid is too large.
    """
    if grid > MAX_GRID:
        raise ValueError(
            f"masks are drawn on grids of at most {MAX_GRID} patches a side, not {grid}"
        )
    free = np.full((len(slots), grid), (1 << grid) - 1, np.uint64)
    left, refusals = np.full(len(slots), count), np.zeros(len(slots), np.int64)
    todo, attempt = np.arange(len(slots)), 0
    while len(todo):
        attempts = np.arange(attempt, attempt + _DRAWN_AHEAD)[:, None, None]
        u = randomness.uniform(seed, step, slots[todo], attempts, np.arange(4)[:, None], _CHOICE)
        changed = _with_blocks(u, grid, free[todo], left[todo], refusals[todo])
        free[todo], left[todo], refusals[todo] = changed
        todo = todo[(left[todo] > 0) & (refusals[todo] < _MAX_REFUSALS)]
        attempt += _DRAWN_AHEAD
    masked = (free[:, :, None] >> np.arange(grid, dtype=np.uint64)) & _ONE == 0
    flat = masked.reshape(len(slots), grid * grid)
    if len(todo := np.flatnonzero(left)):
        rank = randomness.uniform(seed, step, slots[todo, None], np.arange(grid * grid), _FILL)
        rank = np.where(flat[todo], 2.0, rank)
        highest = np.take_along_axis(np.sort(rank, axis=1), left[todo, None] - 1, 1)
        flat[todo] |= rank <= highest
    return flat


def _with_blocks(
    u: NDArray[np.float64], grid: int, free: Words, left: Ints, refusals: Ints
) -> tuple[Words, Ints, Ints]:
    """Try to mask a block of each sample a few times, one after the other.

    Args:
        u: (attempts, 4, B) uniform numbers, see :func:`propose_blocks`.
        grid: patches along one side of an image.
        free: (B, grid) a bit for each patch of a row that is not masked, the lowest for the first.
        left: (B,) patches still to mask.
        refusals: (B,) refused blocks in a row; a sample takes no more after ``_MAX_REFUSALS``.

    Returns:
        free, left and refusals after the attempts.
    """
    smallest, line = smallest_block(grid), np.arange(grid)
    low_bits = (_ONE << np.arange(grid, dtype=np.uint64)) - _ONE
    for numbers in u:
        (top, first), sides = propose_blocks(numbers, grid, smallest, left)
        # Rows above the block have a negative distance from its top: as unsigned, a huge one.
        in_rows = (line - top[:, None]).view(np.uint64) < sides[0].view(np.uint64)[:, None]
        across = low_bits.take(sides[1], mode="clip") << first.view(np.uint64)
        block = np.where(in_rows, across[:, None], 0) & free
        new = np.bitwise_count(block).sum(1, dtype=np.int64)
        fits = (sides.max(0) < grid) & (new > 0) & (new <= left) & (refusals < _MAX_REFUSALS)
        free = free ^ np.where(fits[:, None], block, 0)
        left = left - new * fits
        refusals = (refusals + 1) * ~fits
    return free, left, refusals


def smallest_block(grid: int) -> int:
    """Return the area of the smallest block in patches, in proportion to BEiT's."""
    return max(1, round(_MIN_BLOCK_OF_196 * grid * grid / 196))


def propose_blocks(
    u: NDArray[np.float64], grid: int, smallest: int, left: Ints
) -> tuple[Ints, Ints]:
    """Draw a block for each sample as BEiT does: its area, then aspect ratio, then location.

    Args:
        u: (4, B) uniform numbers in [0, 1) for area, aspect ratio, row and column.
        grid: patches along one side of an image.
        smallest: one bound of the area in patches. It holds even if fewer patches are left: such a
            block fits only where it overlaps masked patches, which joins the blocks of a mask.
        left: (B,) patches still to mask: the other bound of the area.

    Returns:
        (2, B) first row and first column, (2, B) height and width. A block may be larger than the
        grid; the caller must drop it.
    """
    area = smallest + u[0] * (left - smallest)
    aspect = np.exp(_LOG_ASPECTS[0] + u[1] * _LOG_ASPECTS[1])
    sides = np.rint(np.sqrt(np.array([area * aspect, area / aspect])))
    sides = np.maximum(sides, 1).astype(np.int64)
    return (u[2:] * (grid + 1 - sides)).astype(np.int64), sides


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
