"""The order of the samples of a window: random, and the samples of one row far from each other."""

import numpy as np
from numpy.typing import NDArray

from model.training import randomness

Ints = NDArray[np.int64]


def spread(rows: Ints, blocks: Ints, *key: int) -> Ints:
    """Return an order of samples in which those of one row are spread.

    The k samples of a row stand about 1/k of the window apart, from a random start. Two of them
    stand in one block only where no exchange with another block avoids it.

    Args:
        rows: (N,), row of each sample.
        blocks: (N,), block of each position, ascending; a block is the positions of one step.
        key: key of the random numbers.

    Returns:
        (N,), the index of the sample at each position.
    """
    order = spread_evenly(rows, *key)
    return _separate(order, rows, blocks) if len(np.unique(rows)) < len(rows) else order


def spread_evenly(rows: Ints, *key: int) -> Ints:
    """Return an order of samples in which the k of a row stand about 1/k of the whole apart.

    So each stretch of this order has about as many samples of a row as its length says.

    Args:
        rows: (N,), row of each sample.
        key: key of the random numbers.

    Returns:
        (N,), the index of the sample at each position.
    """
    order = np.argsort(rows, kind="stable")
    _, first, inverse, counts = np.unique(
        rows[order], return_index=True, return_inverse=True, return_counts=True
    )
    place = np.arange(len(rows)) - first[inverse]
    random = randomness.generator(*key)
    start = random.random(len(counts))
    # The samples of a row come in a random order, as a row's first sample is not special.
    order = order[np.lexsort((random.random(len(rows)), inverse))]
    times = (place + start[inverse]) / counts[inverse]
    return np.asarray(order[np.argsort(times, kind="stable")], np.int64)


def _separate(order: Ints, rows: Ints, blocks: Ints) -> Ints:
    """Exchange samples until no block has two of one row, as far as exchanges can do it.

    A sample is exchanged with the nearest one that fits. A search costs a few passes over arrays,
    as a window with fewer rows than a block has positions needs one for almost every sample.
    """
    _, row_of = np.unique(rows[order], return_inverse=True)
    _, starts, block_of = np.unique(blocks, return_index=True, return_inverse=True)
    num_rows = int(row_of.max()) + 1
    if len(np.unique(block_of * num_rows + row_of)) == len(order):
        return order
    index = np.arange(len(order))
    ends = [*starts[1:], len(order)]
    in_all_blocks = np.zeros(num_rows, bool)  # no exchange changes this again
    for position, block in enumerate(block_of.tolist()):
        here, row = row_of[starts[block] : ends[block]], row_of[position]
        if in_all_blocks[row] or np.count_nonzero(here == row) < 2:
            continue
        is_here, has_row = np.zeros(num_rows, bool), np.zeros(len(starts), bool)
        is_here[here] = True
        if is_here.all():
            continue
        has_row[block_of[row_of == row]] = True
        if has_row.all():
            in_all_blocks[row] = True
            continue
        fitting = np.flatnonzero(~has_row[block_of] & ~is_here[row_of])
        if len(fitting):
            other = fitting[np.argmin(np.abs(fitting - position))]  # of two, the earlier one
            for values in (row_of, index):
                values[[position, other]] = values[[other, position]]
    return order[index]
