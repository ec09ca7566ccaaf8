"""Which labeled images are compared: training images, the bank, and held-out ones, the queries.

They are drawn class by class, so that every queried class is in the bank, however the corpus is
sorted.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.training import randomness

Ints = NDArray[np.int64]

_BANK_IMAGES_PER_NEIGHBOR: Final = 2
"Images of a class in the bank for each neighbor, so that a class can win the vote."


def draw_images(
    bank: pa.Array,
    bank_groups: Ints,
    queries: pa.Array,
    *,
    num_neighbors: int,
    max_bank: int,
    max_queries: int,
    seed: int,
) -> tuple[Ints, Ints]:
    """Draw the images to compare.

    Classes are drawn such that the bank has about twice ``num_neighbors`` images of each. The
    images of a class come from few row groups, so that few are read.

    Args:
        bank: label of each row of the training table; "" where an image has none.
        bank_groups: row group of each row of the training table.
        queries: label of each row of the held-out table.
        num_neighbors: number of neighbors that vote.
        max_bank: largest number of training images.
        max_queries: largest number of held-out images.
        seed: seed of the draw.

    Returns:
        Row numbers of the bank and of the queries, ascending; both are empty if no class has
        images in both tables.
    """
    names = sorted(set(bank.unique().to_pylist()) & set(queries.unique().to_pylist()) - {"", None})
    num_classes = max(max_bank // (_BANK_IMAGES_PER_NEIGHBOR * num_neighbors), 1)
    chosen = sorted(randomness.generator(seed, 0).permutation(len(names))[:num_classes].tolist())
    classes = pa.array([names[i] for i in chosen], pa.string())
    if not len(classes):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    bank_rows, bank_classes = _rows_of(bank, classes)
    # Row groups are taken in a random order, and rows within them: images of a class come together.
    rank = np.lexsort((
        randomness.bits(seed, 1, bank_rows),
        randomness.bits(seed, 2, bank_groups[bank_rows]),
    ))  # fmt: skip
    kept = rank[_index_within(bank_classes[rank]) < max_bank // len(classes)]
    query_rows, _ = _rows_of(queries, classes)
    drawn = randomness.generator(seed, 3).permutation(query_rows)[:max_queries]
    return np.sort(bank_rows[kept]), np.sort(drawn)


def _rows_of(labels: pa.Array, classes: pa.Array) -> tuple[Ints, Ints]:
    """Return the rows whose label is one of ``classes``, and the index of the class of each."""
    found = pc.fill_null(pc.index_in(labels, classes), -1).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(found >= 0)
    return rows, found[rows].astype(np.int64)


def _index_within(classes: Ints) -> Ints:
    """Return how many earlier rows have the class of each row."""
    order = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    starts = np.cumsum(counts) - counts
    index = np.empty(len(classes), np.int64)
    index[order] = np.arange(len(classes)) - starts[classes[order]]
    return index
