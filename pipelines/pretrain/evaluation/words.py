"""Words of token ids, which are masked whole.

A word that is masked in part can be guessed from its other pieces, and a word that a vocabulary
cuts into many pieces would count many times.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.training import randomness
from tokenizer.text import FIRST_PIECE, TextTokenizer

_LARGEST: Final = 8
"Pieces after which a word ends, for scripts without spaces."
_CHOICE: Final = 37
"Purpose of random numbers."

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def pieces_that_start_words(text: TextTokenizer) -> Bools:
    """Return whether each id (rows of the token embedding) is a piece that starts a word."""
    starts = np.zeros(text.num_rows, bool)
    for index in range(FIRST_PIECE, text.mask):
        starts[index] = text.piece(index).startswith("▁")
    return starts


def word_numbers(ids: Ints, starts: Bools) -> Ints:
    """Return the number of each token's word within its text, from 0; -1 of special tokens.

    Args:
        ids: (B, T) token ids.
        starts: result of :func:`pieces_that_start_words`.
    """
    is_piece = ids >= FIRST_PIECE
    before = np.zeros_like(is_piece)
    before[:, 1:] = is_piece[:, :-1]
    begins = is_piece & (starts[ids] | ~before)
    position = np.arange(ids.shape[1])[None]
    first = np.maximum.accumulate(np.where(begins, position, 0), axis=1)
    begins |= is_piece & ((position - first) % _LARGEST == 0)
    return np.where(is_piece, begins.cumsum(1) - 1, -1)


def mask_words(words: Ints, ratio: float, seed: int, rows: Ints) -> Bools:
    """Choose words of each text: a fraction ``ratio`` of them, and at least one if it has any.

    Args:
        words: (B, T), result of :func:`word_numbers`.
        ratio: fraction to choose.
        seed: of the draws.
        rows: (B,) row numbers, which with the seed decide what is chosen.

    Returns:
        (B, T) bool, True at each piece of a chosen word.
    """
    count = words.max(1, initial=-1) + 1
    chosen = np.where(count > 0, np.maximum(np.rint(ratio * count), 1), 0)
    number = np.arange(max(count.max(initial=0), 1))[None]
    rank = randomness.uniform(seed, _CHOICE, rows[:, None], number)
    order = np.where(number < count[:, None], rank, 2.0).argsort(1).argsort(1)
    is_chosen = order < chosen[:, None]
    masked: Bools = (words >= 0) & np.take_along_axis(is_chosen, np.maximum(words, 0), axis=1)
    return masked
