"""Suppression against ensemble-boxes, whose soft-NMS takes one class at a time, and torchvision."""

import numpy as np
import pytest
import torch
from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float
from torchvision.ops import batched_nms

from model.finetuning.detection.settings import Choice
from model.finetuning.detection.suppression import suppressed

METHODS = {"linear": 1, "gaussian": 2, "hard": 3}
NUM_CLASSES = 3


def random_boxes(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that overlap much, in 0-1, and distinct scores."""
    rng = np.random.default_rng(seed)
    center, side = rng.uniform(0.3, 0.7, (number, 2)), rng.uniform(0.05, 0.5, (number, 2))
    boxes = np.concatenate([center - side / 2, center + side / 2], axis=1).clip(0, 1)
    return boxes, rng.permutation(number * NUM_CLASSES).reshape(number, -1) / 1000 + 0.01


def theirs(boxes: np.ndarray, scores: np.ndarray, choice: Choice) -> list[tuple]:
    found = []
    for class_, of_class in enumerate(scores.T):
        index = np.flatnonzero(of_class > choice.min_score)
        lowered = of_class[index].copy()  # in place, in the order in which boxes are taken
        method = METHODS[choice.suppression]
        kept = cpu_soft_nms_float(
            boxes[index], lowered, choice.max_iou, choice.sigma, choice.min_score, method
        )
        lowered = lowered[lowered > choice.min_score]
        found += zip(lowered, [class_] * len(kept), index[kept], strict=True)
    return sorted(found, reverse=True)[: choice.most]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("most", [5, 100_000])
@pytest.mark.parametrize("min_score", [0.0, 0.06])
def test_it_equals_ensemble_boxes(method, most, min_score):
    for seed in range(5):
        boxes, scores = random_boxes(seed, 30)
        choice = Choice(min_score, method, 0.4, 0.3, most)
        index, classes, found = suppressed(torch.tensor(boxes), torch.tensor(scores), choice)
        expected = theirs(boxes, scores, choice)
        np.testing.assert_allclose(found, [score for score, _, _ in expected], rtol=1e-9)
        pairs = list(zip(classes.tolist(), index.tolist(), strict=True))
        assert pairs == [(class_, number) for _, class_, number in expected]


def test_hard_suppression_equals_torchvision_s():
    boxes, scores = (torch.tensor(each) for each in random_boxes(7, 60))
    index, classes, found = suppressed(boxes, scores, Choice(0.02, "hard", 0.5, most=10_000))
    flat = scores.T.flatten()
    of_class = torch.arange(NUM_CLASSES).repeat_interleave(len(boxes))
    some = (flat > 0.02).nonzero()[:, 0]
    kept = some[batched_nms(boxes.repeat(NUM_CLASSES, 1)[some], flat[some], of_class[some], 0.5)]
    torch.testing.assert_close(found, flat[kept])
    assert (classes * len(boxes) + index).tolist() == kept.tolist()


def test_scores_by_hand():
    """Overlaps with the best box: 1/3 and 0; a class is not lowered by another class."""
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])
    scores = torch.tensor([[0.9, 0.0], [0.6, 0.5], [0.3, 0.0]])
    expected = {
        "hard": [0.9, 0.5, 0.3],
        "linear": [0.9, 0.5, 0.6 * 2 / 3, 0.3],
        "gaussian": [0.9, 0.5, 0.6 * np.exp(-(1 / 9) / 0.5), 0.3],
    }
    for method, values in expected.items():
        _, _, found = suppressed(boxes, scores, Choice(0.1, method, 0.3, 0.5))
        torch.testing.assert_close(found, torch.tensor(sorted(values, reverse=True)).float())


def test_without_boxes_or_scores_there_are_no_detections():
    for boxes, scores in [
        (torch.zeros(0, 4), torch.zeros(0, 2)),
        (torch.rand(3, 4), torch.zeros(3, 2)),
    ]:
        assert [len(each) for each in suppressed(boxes, scores, Choice())] == [0, 0, 0]
