"""Packing: whole documents laid end to end and cut to one length, without padding."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenizer.text import BOS, EOS


def pack(
    ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64], length: int
) -> tuple[NDArray[np.uint16], int]:
    """Lay ``<s> document </s>`` end to end and cut.

    Args:
        ids: of all documents end to end, without specials.
        lengths: ids of each document.
        length: L, tokens of a sequence.

    Returns:
        (sequences (M, L) uint16, tokens left over at the end).

    Raises:
        ValueError: an id does not fit uint16.
    """
    if ids.size and ids.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"id {ids.max()} does not fit 16 bits: the vocabulary is too large")
    ends = np.cumsum(lengths + 2)
    starts = ends - lengths - 2
    stream = np.empty(len(ids) + 2 * len(lengths), np.uint16)
    is_id = np.ones(len(stream), bool)
    is_id[starts] = is_id[ends - 1] = False
    stream[starts], stream[ends - 1], stream[is_id] = BOS, EOS, ids
    whole = len(stream) // length * length
    return stream[:whole].reshape(-1, length), len(stream) - whole
