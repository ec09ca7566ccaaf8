"""k-nearest-neighbor accuracy of image features: which images are compared, and how many are right.

The images are drawn class by class, so that every queried class is in the bank, however the corpus
is sorted.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
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


def neighbor_numbers(bank: pa.Table, queries: pa.Table, k: int) -> dict[str, float]:
    """Return the fraction of queries whose k nearest neighbors vote for the right label.

    Args:
        bank: features and labels of training images.
        queries: features and labels of held-out images.
        k: number of neighbors.
    """
    bank_features, bank_labels = _features(bank)
    query_features, true_labels = _features(queries)
    similarity = query_features @ bank_features.T
    nearest = similarity.topk(min(k, len(bank_features)), dim=1)
    correct = 0
    for row, label in zip(nearest.indices.tolist(), true_labels, strict=True):
        votes = [bank_labels[i] for i in row]  # nearest first, so ties go to the nearer neighbor
        correct += max(votes, key=votes.count) == label
    return {
        "accuracy/knn": correct / len(true_labels),
        "baseline_accuracy/knn": max(map(true_labels.count, true_labels)) / len(true_labels),
        "num_classes/knn": len(set(true_labels)),
    }


def _features(table: pa.Table) -> tuple[torch.Tensor, list[Any]]:
    rows = [row for row in table.to_pylist() if row["objective"] == "features"]
    features = torch.tensor([feature for row in rows for feature in row["features"]])
    return features, [label for row in rows for label in row["labels"]]
