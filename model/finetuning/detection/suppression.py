"""Suppression of overlapping boxes, class by class: hard, and soft-NMS (arXiv:1704.04503).

The best box of each class is taken in turn, and the scores of the others fall by their overlap with
it. As scores only fall, a class yields its boxes best first, so the best boxes of all classes are
known after as many turns as boxes are wanted. All classes take their turns together.
"""

import torch
from torch import Tensor

from model.finetuning.detection.settings import Choice


def suppressed(boxes: Tensor, scores: Tensor, choice: Choice) -> tuple[Tensor, Tensor, Tensor]:
    """Return (indexes of boxes, classes, scores) of the detections of an image, best first.

    Args:
        boxes: (n, 4), the same for all classes.
        scores: (n, C) of each class.
        choice: how boxes are chosen.
    """
    left = scores.T.contiguous()
    left = torch.where(left > choice.min_score, left, 0.0)
    rows = torch.arange(len(left), device=left.device)
    turns = []
    for _ in range(min(choice.most, len(boxes))):
        score, index = left.max(dim=1)
        turns.append((index, score))
        left *= _weight(_overlap(boxes[index], boxes), choice)
        left[rows, index] = 0
        left[left <= choice.min_score] = 0
    if not turns:
        empty = boxes.new_zeros(0, dtype=torch.long)
        return empty, empty, boxes.new_zeros(0)
    indexes, found = (torch.stack(each, dim=1).flatten() for each in zip(*turns, strict=True))
    classes = rows.repeat_interleave(len(turns))
    order = found.argsort(descending=True, stable=True)[: choice.most]
    order = order[found[order] > 0]
    return indexes[order], classes[order], found[order]


def _weight(overlap: Tensor, choice: Choice) -> Tensor:
    if choice.suppression == "gaussian":
        return torch.exp(-overlap.square() / choice.sigma)
    lowered = 1 - overlap if choice.suppression == "linear" else torch.zeros_like(overlap)
    return torch.where(overlap > choice.max_iou, lowered, 1.0)


def _overlap(chosen: Tensor, boxes: Tensor) -> Tensor:
    """Return the IoU (C, n) of one box per class with all boxes."""
    near = torch.maximum(chosen[:, None, :2], boxes[None, :, :2])
    far = torch.minimum(chosen[:, None, 2:], boxes[None, :, 2:])
    shared = (far - near).clamp(min=0).prod(dim=2)
    areas = [(some[:, 2:] - some[:, :2]).clamp(min=0).prod(dim=1) for some in (chosen, boxes)]
    return shared / (areas[0][:, None] + areas[1] - shared).clamp(min=1e-9)
