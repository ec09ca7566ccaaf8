"""Packing: documents are concatenated and cut into sequences of one length, without padding."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenizer.text import BOS, EOS


def pack(
    ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64], length: int
) -> tuple[NDArray[np.uint16], int]:
    """Concatenate ``<s> document </s>`` of all documents and cut the result.

    Args:
        ids: token ids of all documents, concatenated, without special tokens.
        lengths: number of token ids of each document.
        length: number of tokens of a sequence.

    Returns:
        (sequences (rows, length) uint16, number of tokens at the end that fill no sequence).

    Raises:
        ValueError: an id does not fit uint16.
    """
    if ids.size and ids.max() > np.iinfo(np.uint16).max:
        raise ValueError(
            f"token id {ids.max()} does not fit 16 bits; "
            "train a text tokenizer with a smaller vocab_size"
        )
    ends = np.cumsum(lengths + 2)
    starts = ends - lengths - 2
    stream = np.empty(len(ids) + 2 * len(lengths), np.uint16)
    is_id = np.ones(len(stream), bool)
    is_id[starts] = is_id[ends - 1] = False
    stream[starts], stream[ends - 1], stream[is_id] = BOS, EOS, ids
    whole = len(stream) // length * length
    return stream[:whole].reshape(-1, length), len(stream) - whole
