"""Which images are compared, and that the accuracy does not depend on how the corpus is sorted."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.metrics.neighbors import neighbor_accuracy
from pipelines.pretrain.evaluation.draw_images import draw_images

GROUP = 64


def draw(bank, queries, *, k=5, max_bank=2000, max_queries=600, seed=0):
    groups = np.arange(len(bank)) // GROUP
    return draw_images(
        pa.array(bank, pa.string()),
        groups,
        pa.array(queries, pa.string()),
        num_neighbors=k,
        max_bank=max_bank,
        max_queries=max_queries,
        seed=seed,
    )


def corpus(num_classes=200, per_class=60):
    """Labels of a class-sorted corpus, and a few held-out images of each class."""
    names = [f"n{i:04d}" for i in range(num_classes)]
    return np.repeat(names, per_class), np.repeat(names, 6)


def measured(bank, queries, features_of):
    """Number of classes and accuracy of the drawn images."""
    bank_rows, query_rows = draw(bank, queries)
    labels = bank[bank_rows].tolist(), queries[query_rows].tolist()
    features = (
        torch.from_numpy(features_of(some, np.random.default_rng(seed)))
        for seed, some in enumerate(labels, 1)
    )
    voting, asked = features
    return len(set(labels[1])), neighbor_accuracy(voting, labels[0], asked, labels[1], 5)


def test_the_accuracy_is_the_same_on_a_class_sorted_and_on_a_shuffled_corpus():
    bank, queries = corpus()
    centers = np.random.default_rng(7).normal(size=(200, 16))

    def features(labels, generator):
        classes = np.array([int(label[1:]) for label in labels])
        vectors = centers[classes] + generator.normal(size=(len(classes), 16))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    in_order = measured(bank, queries, features)
    generator = np.random.default_rng(3)
    mixed = measured(generator.permutation(bank), generator.permutation(queries), features)
    assert min(in_order[0], mixed[0]) > 180
    assert 0.2 < mixed[1] < 0.95
    assert in_order[1] == pytest.approx(mixed[1], abs=0.06)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_bank_holds_each_queried_class_equally_often(shuffled):
    bank, queries = corpus()
    if shuffled:
        bank = np.random.default_rng(0).permutation(bank)
    bank_rows, query_rows = draw(bank, queries)
    assert len(query_rows) == 600 == len(set(query_rows.tolist()))
    counts = Counter(bank[bank_rows].tolist())
    assert set(queries[query_rows].tolist()) <= counts.keys()
    assert set(counts.values()) == {10} and len(bank_rows) == 2000


def test_with_more_classes_than_the_bank_can_hold_some_classes_are_drawn():
    bank, queries = corpus()
    bank_rows, query_rows = draw(bank, queries, max_bank=100)
    classes = set(bank[bank_rows].tolist())
    assert len(classes) == 10 and len(bank_rows) == 100
    assert classes == set(queries[query_rows].tolist())
    other = draw(bank, queries, max_bank=100, seed=1)[0]
    assert classes != set(bank[other].tolist())


def test_the_images_of_the_bank_come_from_few_row_groups():
    bank, queries = corpus()
    bank = np.random.default_rng(0).permutation(bank)
    bank_rows, _ = draw(bank, queries, max_bank=200)
    # A group holds 6 images of the 20 classes: at least 32 groups, not one for each image.
    assert len(set((bank_rows // GROUP).tolist())) < 90


@pytest.mark.parametrize(
    ("bank", "queries"),
    [
        ([""] * 9, [""] * 9),
        (["a"] * 9, ["b"] * 9),
        ([], ["a"]),
        (["a"], []),
        ([None, ""], ["", "a"]),
    ],
)
def test_images_without_labels_in_common_are_not_compared(bank, queries):
    bank_rows, query_rows = draw(np.array(bank, object), np.array(queries, object))
    assert not len(bank_rows) and not len(query_rows)


def test_images_without_label_are_left_out():
    bank_rows, query_rows = draw(
        np.array(["a", "", None, "b", "a"], object), np.array([None, "b", "a", ""], object)
    )
    assert bank_rows.tolist() == [0, 3, 4] and query_rows.tolist() == [1, 2]
