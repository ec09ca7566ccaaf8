"""Packing: whole documents laid end to end and cut to one length, without padding."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tokenizer.text import BOS, EOS


def pack(documents: Iterable[NDArray[np.int64]], length: int) -> tuple[NDArray[np.uint16], int]:
    """Lay ``<s> document </s>`` end to end and cut.

    Args:
        documents: ids of each document, without specials.
        length: L, tokens of a sequence.

    Returns:
        (sequences (M, L) uint16, tokens left over at the end).

    Raises:
        ValueError: an id does not fit uint16.
    """
    pieces: list[NDArray[np.int64]] = []
    for ids in documents:
        pieces += [np.array([BOS]), ids, np.array([EOS])]
    stream = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
    if stream.size and stream.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"id {stream.max()} does not fit 16 bits: the vocabulary is too large")
    whole = len(stream) // length * length
    return stream[:whole].reshape(-1, length).astype(np.uint16), len(stream) - whole
