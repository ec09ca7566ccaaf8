"""Scores of an image of any size: from overlapping windows, at several scales, and mirrored.

A window is a square of the training's size. Where windows overlap, and over the forms of an image,
scores are averaged. Sums are made window by window in one order, however many windows are scored in
a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from model.finetuning.finite import require_finite

_CLASSES_AT_ONCE: Final = 8
"Classes whose scores are resized together: those of 150 for a photo would take gigabytes."
Score = Callable[[Tensor], Tensor]
"Gives the scores (B, C, S, S) of windows (B, 3, S, S)."
Size = tuple[int, int]
"Height and width in pixels."


@dataclass(frozen=True)
class ScaledView:
    """One of the forms in which a network sees an image."""

    image: Tensor
    "(3, H, W) float, normalized."
    flipped: bool
    "Whether left and right are exchanged."


def starts(length: int, size: int, stride: int) -> list[int]:
    """Return the first positions of windows; the last one ends with the image.

    Args:
        length: of the image along one side.
        size: of a window.
        stride: from one window to the next.

    Raises:
        ValueError: there would be a gap between two windows.
    """
    if not 0 < stride <= size:
        raise ValueError(f"stride {stride} of windows of size {size}; give one of 1 to {size}")
    number = 1 + -(-max(length - size, 0) // stride)
    return [max(min(i * stride, length - size), 0) for i in range(number)]


def window_scores(score: Score, image: Tensor, size: int, stride: int, at_once: int = 8) -> Tensor:
    """Return the mean scores (C, H, W) of an image over all windows.

    An image that is smaller than a window is padded at right and bottom with 0, the mean of
    normalized pixels.

    Args:
        score: of windows.
        image: (3, H, W) float, normalized.
        size: S, of a window along both sides.
        stride: from one window to the next.
        at_once: windows that are scored in one batch.
    """
    height, width = image.shape[1:]
    padded = F.pad(image, (0, max(size - width, 0), 0, max(size - height, 0)))
    corners = [
        (top, left) for top in starts(height, size, stride) for left in starts(width, size, stride)
    ]
    total, number = None, image.new_zeros(padded.shape[1:])
    for first in range(0, len(corners), at_once):
        some = corners[first : first + at_once]
        windows = [padded[:, y : y + size, x : x + size] for y, x in some]
        for (y, x), found in zip(some, score(torch.stack(windows)), strict=True):
            if total is None:
                total = found.new_zeros(len(found), *padded.shape[1:])
            total[:, y : y + size, x : x + size] += found
            number[y : y + size, x : x + size] += 1
    assert total is not None
    return (total / number)[:, :height, :width]


def best_classes(
    score: Score,
    views: Sequence[ScaledView],
    shown: Size,
    window: int,
    stride: int,
    at_once: int = 8,
) -> Tensor:
    """Return the class (*shown) long with the best mean score over the forms of one image.

    Of classes with equal scores it is the first one.

    Args:
        score: of windows.
        views: the forms, at least one.
        shown: size that scores are resized to, that of the label map.
        window: size of a window.
        stride: from one window to the next.
        at_once: windows that are scored in one batch.

    Raises:
        NotFinite: scores are no numbers.
    """
    found = []
    for view in views:
        scores = window_scores(score, view.image, window, stride, at_once)
        require_finite(scores.sum().item(), "scores of the pixels")
        scores = scores.flip(2) if view.flipped else scores
        is_smaller = shown[0] * shown[1] < scores.shape[1] * scores.shape[2]
        found.append(_resized(scores, shown) if is_smaller else scores)
    best = found[0].new_full(shown, -torch.inf)
    classes = torch.zeros(shown, dtype=torch.long, device=best.device)
    for first in range(0, len(found[0]), _CLASSES_AT_ONCE):
        some = [_resized(scores[first : first + _CLASSES_AT_ONCE], shown) for scores in found]
        values, places = (sum(some[1:], some[0]) / len(some)).max(dim=0)
        is_better = values > best
        classes = torch.where(is_better, places + first, classes)
        best = torch.where(is_better, values, best)
    return classes


def _resized(scores: Tensor, shown: Size) -> Tensor:
    return F.interpolate(scores[None], shown, mode="bilinear", align_corners=False)[0]
