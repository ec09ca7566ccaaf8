"""Classifiers and heads of frozen features: against scikit-learn, and on features made for them."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from model.metrics import neighbors
from model.metrics.contrastive_heads import tune_heads
from model.metrics.linear_probe import probe_accuracy
from model.metrics.neighbors import neighbor_accuracy
from model.metrics.retrieval import retrieval_recalls


def classes(seed: int, number: int, num_classes: int = 2, noise: float = 1.0):
    """Features around a center for each class, and the labels."""
    centers = np.random.default_rng(7).normal(size=(num_classes, 12))
    rng = np.random.default_rng(seed)
    of = rng.integers(0, num_classes, number)
    features = centers[of] + noise * rng.normal(size=(number, 12))
    return torch.from_numpy(features), [f"class {i}" for i in of]


@pytest.mark.parametrize("k", [1, 5, 9])
def test_the_vote_of_neighbors_is_that_of_scikit_learn(k, monkeypatch):
    monkeypatch.setattr(neighbors, "_BLOCK", 17)
    bank, bank_labels = classes(1, 200)
    queries, labels = classes(2, 150)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(bank, bank_labels)
    found = neighbor_accuracy(bank, bank_labels, queries, labels, k)
    assert found == theirs.score(queries, labels)
    assert 0.6 < found < 1


def test_of_equal_votes_the_nearest_neighbor_wins():
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    asked = torch.tensor([[1.0, 0.01]])
    assert neighbor_accuracy(bank, ["b", "a", "c"], asked, ["b"], 2) == 1
    assert neighbor_accuracy(bank, ["b", "a", "c"], asked, ["b"], 99) == 1


def test_a_probe_finds_what_is_linear_and_nothing_in_noise():
    bank, bank_labels = classes(1, 400, num_classes=6, noise=0.5)
    queries, labels = classes(2, 300, num_classes=6, noise=0.5)
    assert probe_accuracy(bank, bank_labels, queries, labels) > 0.95
    shuffled = np.random.default_rng(0).permutation(bank_labels).tolist()
    found = probe_accuracy(bank, shuffled, queries, labels)
    assert found < 0.35
    assert probe_accuracy(bank, shuffled, queries, labels) == found


def test_the_scale_of_a_feature_does_not_matter_to_a_probe():
    bank, bank_labels = classes(1, 100, num_classes=3)
    queries, labels = classes(2, 100, num_classes=3)
    scale = torch.logspace(-6, 6, 12, dtype=torch.float64)
    constant = torch.ones(100, 1)
    found = probe_accuracy(
        torch.cat([bank * scale, constant], 1),
        bank_labels,
        torch.cat([queries * scale, constant], 1),
        labels,
    )
    assert found == probe_accuracy(bank, bank_labels, queries, labels)


def test_one_class_cannot_be_told_from_others():
    bank, _ = classes(1, 9)
    assert probe_accuracy(bank, ["a"] * 9, bank, ["a"] * 9) is None


def pairs(number: int, seed: int, shared: bool = True):
    """Features of images and texts that are two linear maps of the same facts, or of other ones."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(5)
    facts = rng.normal(size=(number, 6))
    images = facts @ fixed.normal(size=(6, 20)) + 0.05 * rng.normal(size=(number, 20))
    other = facts if shared else rng.normal(size=(number, 6))
    texts = other @ fixed.normal(size=(6, 30)) + 3
    return torch.from_numpy(images), torch.from_numpy(texts)


def recall(train, asked) -> float:
    found = retrieval_recalls(*tune_heads(*train, 0).aligned(*asked), torch.arange(len(asked[0])))
    return found["image_to_text/recall_at_1"]


def test_tuned_heads_align_what_is_shared_and_nothing_else():
    assert recall(pairs(300, 1), pairs(100, 2)) > 0.8
    assert recall(pairs(300, 1, shared=False), pairs(100, 2, shared=False)) < 0.1


def test_tuning_repeats_exactly_and_leaves_the_global_generator_alone():
    train, asked = pairs(40, 1), pairs(10, 2)
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    first = tune_heads(*train, 3).aligned(*asked)
    assert torch.equal(torch.rand(1), expected)
    second = tune_heads(*train, 3).aligned(*asked)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(tune_heads(*train, 4).aligned(*asked)[0], first[0])
