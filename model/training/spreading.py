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
    order = order[np.argsort(times, kind="stable")]
    return _separate(order, rows, blocks) if len(counts) < len(rows) else order


def _separate(order: Ints, rows: Ints, blocks: Ints) -> Ints:
    """Exchange samples until no block has two of one row, as far as exchanges can do it."""
    order = order.copy()
    of_block: dict[int, list[int]] = {}
    for block, index in zip(blocks.tolist(), order.tolist(), strict=True):
        of_block.setdefault(block, []).append(int(rows[index]))
    crowded = [block for block, mine in of_block.items() if len(set(mine)) < len(mine)]
    if not crowded:
        return order
    block_of = blocks.tolist()
    positions = range(len(order))
    for position in positions:
        here, row = of_block[block_of[position]], int(rows[order[position]])
        if here.count(row) < 2:
            continue
        for other in sorted(positions, key=lambda p: (abs(p - position), p)):
            there, other_row = of_block[block_of[other]], int(rows[order[other]])
            if there is not here and row not in there and other_row not in here:
                order[[position, other]] = order[[other, position]]
                here[here.index(row)], there[there.index(other_row)] = other_row, row
                break
    return order
