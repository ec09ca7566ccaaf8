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
    packer = Packer(length)
    return packer.add(ids, lengths), packer.num_left


class Packer:
    """Packs documents that arrive in batches; the sequences do not depend on the batches."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._rest = np.empty(0, np.uint16)

    @property
    def num_left(self) -> int:
        """Return the number of tokens that fill no sequence yet."""
        return len(self._rest)

    def add(self, ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Return the sequences (rows, length) that further documents complete; see :func:`pack`."""
        if ids.size and ids.max() > np.iinfo(np.uint16).max:
            raise ValueError(
                f"token id {ids.max()} does not fit 16 bits; "
                "train a text tokenizer with a smaller vocab_size"
            )
        ends = np.cumsum(lengths + 2)
        starts = ends - lengths - 2
        tokens = np.empty(len(ids) + 2 * len(lengths), np.uint16)
        is_id = np.ones(len(tokens), bool)
        is_id[starts] = is_id[ends - 1] = False
        tokens[starts], tokens[ends - 1], tokens[is_id] = BOS, EOS, ids
        tokens = np.concatenate([self._rest, tokens])
        whole = len(tokens) // self.length * self.length
        self._rest = tokens[whole:].copy()
        return tokens[:whole].reshape(-1, self.length)
