"""Metrics of the tasks against scikit-learn and scipy on the raw arrays."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    top_k_accuracy_score,
)

from pipelines.finetune.class_scores import best_labels
from tests.pipelines.finetune.examples import labelled, predictions, task_of

NAMES = list("abcdefgh")


def predicted(scores, names):
    """Rows of predictions that the network's scores (B, K) give."""
    found = best_labels(torch.tensor(scores), names)
    return predictions([{"labels": p.labels, "scores": p.scores} for p in found])


def drawn(num, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, classes)).astype(np.float32), rng.integers(classes, size=num)


def test_accuracy_of_the_best_and_of_the_five_best_is_scikit_learn_s():
    scores, true = drawn(300, len(NAMES))
    found = task_of("dual").score(predicted(scores, NAMES), labelled([[NAMES[i]] for i in true]))
    assert found["accuracy"] == pytest.approx(accuracy_score(true, scores.argmax(1)))
    expected = top_k_accuracy_score(true, scores, k=5, labels=range(len(NAMES)))
    assert found["accuracy_top5"] == pytest.approx(expected)
    assert found["chance/accuracy"] == pytest.approx(np.bincount(true).max() / 300)
    assert found["score"] == found["accuracy"]


def test_labels_are_ranked_by_scores_whose_probabilities_are_rounded_to_zero():
    scores = np.array([[500.0, 0.0, 1.0, 2.0, 3.0, 4.0]], np.float32)
    (found,) = best_labels(torch.tensor(scores), list("abcdef"))
    assert list(found.labels) == list("afedc") and found.scores == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("num_classes", [3, 1000])
def test_of_equal_scores_the_class_with_the_smallest_number_is_predicted(num_classes):
    names = [f"{i}" for i in range(num_classes)]
    scores = torch.zeros(20, num_classes)
    scores[:, num_classes // 2] = -1
    for found in best_labels(scores, names):
        left = [name for name in names if name != names[num_classes // 2]]
        assert list(found.labels) == ([*left, names[num_classes // 2]])[:5]


def test_an_unknown_label_of_dev_is_counted_wrong_and_one_without_label_is_left_out():
    scores, true = drawn(50, 2)
    truth = [[NAMES[i]] for i in true] + [["z"]] * 10 + [[]] * 5
    rows = predicted(np.concatenate([scores, np.zeros((15, 2), np.float32)]), NAMES[:2])
    right = int((scores.argmax(1) == true).sum())
    for kind in ("dual", "nlvr2", "sentences"):
        found = task_of(kind).score(rows, labelled(truth))
        assert found["accuracy"] == pytest.approx(right / 60)
    for scored_by in ("accuracy_and_f1", "matthews"):
        found = task_of("sentences", scored_by=scored_by).score(rows, labelled(truth))
        assert all(np.isfinite(list(found.values())))


def test_f1_and_matthews_are_scikit_learn_s_on_the_raw_classes():
    for seed in range(20):
        scores, true = drawn(40, 2, seed)
        guess, rows, truth = (
            scores.argmax(1),
            predicted(scores, ["0", "1"]),
            [[f"{i}"] for i in true],
        )
        both = task_of("sentences", scored_by="accuracy_and_f1").score(rows, labelled(truth))
        accuracy, f1 = accuracy_score(true, guess), f1_score(true, guess)
        assert both["f1"] == pytest.approx(f1) and both["accuracy"] == pytest.approx(accuracy)
        assert both["score"] == pytest.approx((accuracy + f1) / 2)
        one = task_of("sentences", scored_by="matthews").score(rows, labelled(truth))
        assert one["score"] == one["matthews"] == pytest.approx(matthews_corrcoef(true, guess))


def test_f1_is_that_of_the_second_label_though_nothing_but_the_first_occurs():
    rows = predicted(np.array([[1.0, 0.0]] * 4, np.float32), ["0", "1"])
    found = task_of("sentences", scored_by="accuracy_and_f1").score(rows, labelled([["0"]] * 4))
    assert found["f1"] == 0 and found["accuracy"] == 1


def test_correlations_are_scipy_s():
    rng = np.random.default_rng(0)
    true = np.round(rng.uniform(0, 5, 60), 1)  # with ties
    guess = (true + rng.normal(size=60)).astype(np.float32)
    rows = predictions([{"labels": [f"{x:.3f}"], "scores": [x]} for x in guess] + [{"scores": [9]}])
    truth = labelled([[f"{x}"] for x in true] + [[]])
    found = task_of("numbers").score(rows, truth)
    expected = pearsonr(guess, true).statistic, spearmanr(guess, true).statistic
    assert (found["pearson"], found["spearman"]) == pytest.approx(expected)
    assert found["score"] == pytest.approx(sum(expected) / 2)


def test_a_constant_prediction_has_no_correlation():
    rows = predictions([{"scores": [1.0]}] * 3)
    found = task_of("numbers").score(rows, labelled([["1"], ["2"], ["3"]]))
    assert found == {"pearson": 0, "spearman": 0, "score": 0}


def test_mean_average_precision_is_scikit_learn_s_over_all_classes_that_occur():
    """One class never occurs, one is unknown to the network."""
    rng = np.random.default_rng(0)
    names = NAMES[:6]
    scores = rng.uniform(size=(80, 6)).astype(np.float32)
    true = rng.random((80, 7)) < 0.3
    true[:, 5] = False
    true[~true.any(1), 0] = True
    order = np.argsort(-scores, 1, kind="stable")
    rows = predictions(
        [
            {"labels": [names[i] for i in some], "scores": mine[some]}
            for some, mine in zip(order, scores, strict=True)
        ]
    )
    truth = [[(*names, "z")[i] for i in np.flatnonzero(some)] for some in true]
    found = task_of("several labels").score(rows, labelled(truth))
    kept = [0, 1, 2, 3, 4, 6]
    full = np.concatenate([scores, np.zeros((80, 1), np.float32)], 1)
    expected = average_precision_score(true[:, kept], full[:, kept])
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["chance/mean_average_precision"] == pytest.approx(true[:, kept].mean(0).mean())


def test_recalls_of_images_and_their_own_texts_equal_a_count():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 4, 12)
    images, texts = rng.normal(size=(12, 6)), rng.normal(size=(int(counts.sum()), 6))
    owner, ends = np.repeat(np.arange(12), counts), np.cumsum(counts)
    texts += 1.5 * images[owner]
    rows = [
        {"features": [image, *texts[end - n : end]]}
        for image, n, end in zip(images, counts, ends, strict=True)
    ]
    found = task_of("retrieval").score(predictions(rows), labelled([[]] * 12))
    similar = images @ texts.T
    for k in (1, 5, 10):
        to_text = [(owner[np.argsort(-row)[:k]] == i).any() for i, row in enumerate(similar)]
        to_image = [i in np.argsort(-row)[:k] for i, row in zip(owner, similar.T, strict=True)]
        assert found[f"image_to_text/recall_at_{k}"] == pytest.approx(np.mean(to_text))
        assert found[f"text_to_image/recall_at_{k}"] == pytest.approx(np.mean(to_image))
    six = [value for name, value in found.items() if "recall_at" in name and "chance" not in name]
    assert len(six) == 6 and found["mean_recall"] == pytest.approx(np.mean(six))
    assert found["chance/text_to_image/recall_at_1"] == pytest.approx(1 / 12)
    assert found["chance/image_to_text/recall_at_1"] == pytest.approx(np.mean(counts / len(texts)))
