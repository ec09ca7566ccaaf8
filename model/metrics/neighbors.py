"""Accuracy of the vote of the k nearest neighbors, by the cosine of features."""

from collections.abc import Sequence
from typing import Final

import torch.nn.functional as F
from torch import Tensor

_BLOCK: Final = 1024
"Number of queries that are compared at once."


def neighbor_accuracy(
    bank: Tensor,
    bank_labels: Sequence[str],
    queries: Tensor,
    query_labels: Sequence[str],
    k: int,
) -> float:
    """Return the fraction of queries whose k nearest neighbors vote for the right label.

    Of labels with equal votes the one with the nearest neighbor wins.

    Args:
        bank: (M, D) float, features of the samples that vote.
        bank_labels: M labels.
        queries: (N, D) float.
        query_labels: N labels.
        k: number of neighbors; all of the bank if it has fewer.
    """
    bank, correct = F.normalize(bank, dim=1), 0
    for first in range(0, len(queries), _BLOCK):
        similarity = F.normalize(queries[first : first + _BLOCK], dim=1) @ bank.T
        nearest = similarity.topk(min(k, len(bank)), dim=1).indices.tolist()
        for row, label in zip(nearest, query_labels[first : first + _BLOCK], strict=True):
            votes = [bank_labels[i] for i in row]  # nearest first, and max() takes the first
            correct += max(votes, key=votes.count) == label
    return correct / len(queries)
