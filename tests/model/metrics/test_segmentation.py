"""Mean IoU against torchmetrics' own mean and against loops over pixels and classes."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from model.metrics.segmentation import segmentation_score

NAMES = ["wall", "sky", "car", "boat", "dog"]
IGNORED = 255


def maps(number: int = 4, classes: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of five classes, three are in the true maps and one more is predicted."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(number):
        true = rng.integers(0, classes, (6 + i, 8)).astype(np.uint8)
        found = np.where(rng.random(true.shape) < 0.6, true, rng.integers(0, 4, true.shape))
        true[rng.random(true.shape) < 0.2] = IGNORED
        made.append((found.astype(np.uint8), true))
    return made


def counted(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    confusion = np.zeros((len(NAMES), len(NAMES)), np.int64)
    for found, true in pairs:
        for f, t in zip(found.ravel().tolist(), true.ravel().tolist(), strict=True):
            if t != IGNORED:
                confusion[t, f] += 1
    return confusion


def test_the_mean_is_that_of_a_confusion_matrix_over_the_whole_set():
    score = segmentation_score(maps(), NAMES, IGNORED)
    confusion = counted(maps())
    assert score.confusion.tolist() == confusion.tolist()
    ious = {}
    for c, name in enumerate(NAMES):
        union = confusion[c].sum() + confusion[:, c].sum() - confusion[c, c]
        if union:
            ious[name] = confusion[c, c] / union
    assert list(ious) == NAMES[:4] and ious["boat"] == 0, "predicted, but in no true map"
    assert score.by_class == pytest.approx(ious)
    assert score.metrics["mIoU"] == pytest.approx(np.mean(list(ious.values())))
    assert score.metrics["pixel_accuracy"] == pytest.approx(confusion.trace() / confusion.sum())
    recalls = [confusion[c, c] / confusion[c].sum() for c in range(3)]
    assert score.metrics["class_accuracy"] == pytest.approx(np.mean(recalls))


def test_it_is_the_mean_of_torchmetrics_and_not_a_mean_over_images():
    settings = {"num_classes": len(NAMES), "ignore_index": IGNORED}
    macro, matrix = MulticlassJaccardIndex(**settings), MulticlassConfusionMatrix(**settings)
    for found, true in maps():
        pair = torch.tensor(found).long(), torch.tensor(true).long()
        macro.update(*pair)
        matrix.update(*pair)
    score = segmentation_score(maps(), NAMES, IGNORED)
    assert score.metrics["mIoU"] == pytest.approx(float(macro.compute()))
    assert score.confusion.tolist() == matrix.compute().tolist()
    alone = [segmentation_score([pair], NAMES, IGNORED).metrics["mIoU"] for pair in maps()]
    assert abs(np.mean(alone) - score.metrics["mIoU"]) > 1e-3


def test_the_order_of_images_does_not_matter():
    score = segmentation_score(maps(), NAMES, IGNORED)
    again = segmentation_score(maps()[::-1], NAMES, IGNORED)
    assert score.metrics == again.metrics and score.by_class == again.by_class


def test_a_perfect_prediction_has_1_whatever_it_says_of_ignored_pixels():
    pairs = [(np.where(true == IGNORED, 4, true).astype(np.uint8), true) for _, true in maps()]
    score = segmentation_score(pairs, NAMES, IGNORED)
    assert set(score.metrics.values()) == {1.0} and list(score.by_class) == NAMES[:3]


def test_maps_that_cannot_be_compared_are_refused():
    found, true = maps(1)[0]
    with pytest.raises(ValueError, match=r"image 1: the predicted map has \(6, 7\) pixels"):
        segmentation_score([(found, true), (found[:, 1:], true)], NAMES, IGNORED)
    with pytest.raises(ValueError, match="no pixel of the true label maps has a class"):
        segmentation_score([(found, np.full_like(true, IGNORED))], NAMES, IGNORED)
