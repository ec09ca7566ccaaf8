"""Scores of an image of any size: from overlapping windows, at several scales, and mirrored.

A window is a square of the training's size. Where windows overlap, and over the forms of an image,
scores are averaged. Sums are made window by window in one order, however many windows are scored in
a batch.

The scores of all classes at every pixel of a photo take gigabytes. Above a limit they are held in
the size of the largest form, and enlarged band by band. Of several forms of such a photo the
smaller ones are then resized twice; nothing else changes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from model.finetuning.finite import require_finite

Score = Callable[[Tensor], Tensor]
"Gives the scores (B, C, S, S) of windows (B, 3, S, S)."
Size = tuple[int, int]
"Height and width in pixels."
MOST_SCORES: Final = 1 << 29
"Numbers, classes times pixels, that are held for an image: 2 GiB."
_BANDS: Final = 8
"A band holds at most ``MOST_SCORES`` divided by this."


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


def mean_scores(
    score: Score,
    views: Sequence[ScaledView],
    shown: Size,
    window: int,
    stride: int,
    at_once: int = 8,
) -> Tensor:
    """Return the mean scores (C, *shown) over the forms of one image.

    Args:
        score: of windows.
        views: the forms, at least one.
        shown: size that scores are resized to, that of the label map.
        window: size of a window.
        stride: from one window to the next.
        at_once: windows that are scored in one batch.
    """
    total: Tensor | float = 0.0
    for view in views:
        found = window_scores(score, view.image, window, stride, at_once)
        found = found.flip(2) if view.flipped else found
        resized = F.interpolate(found[None], shown, mode="bilinear", align_corners=False)
        total = total + resized[0]
    assert isinstance(total, Tensor)
    return total / len(views)


def best_classes(
    score: Score,
    views: Sequence[ScaledView],
    shown: Size,
    window: int,
    stride: int,
    num_classes: int,
) -> Tensor:
    """Return the class with the best mean score at each pixel, (*shown) uint8.

    Args:
        score: of windows.
        views: the forms, at least one.
        shown: size of the label map.
        window: size of a window.
        stride: from one window to the next.
        num_classes: C, at most 256.

    Raises:
        NotFinite: scores are no numbers, of which some class would be the best.
    """
    size = shown
    if num_classes * math.prod(shown) > MOST_SCORES:
        seen = [(view.image.shape[1], view.image.shape[2]) for view in views]
        size = min(shown, max(seen, key=math.prod), key=math.prod)
    scores = mean_scores(score, views, size, window, stride)
    require_finite(scores.sum().item(), "scores of the classes")
    if size == shown:
        return scores.argmax(dim=0).to(torch.uint8)
    rows = max(MOST_SCORES // (_BANDS * num_classes * shown[1]), 1)
    bands = [
        enlarged_rows(scores, shown, first, min(first + rows, shown[0])).argmax(dim=0)
        for first in range(0, shown[0], rows)
    ]
    return torch.cat([band.to(torch.uint8) for band in bands])


def enlarged_rows(scores: Tensor, size: Size, first: int, stop: int) -> Tensor:
    """Return some rows (C, stop - first, W) of scores (C, h, w) in another size (H, W), bilinear.

    Args:
        scores: (C, h, w) float.
        size: H and W.
        first: number of the first row.
        stop: number after that of the last row.
    """
    height = scores.shape[1]
    rows = torch.arange(first, stop, device=scores.device, dtype=torch.float64)
    places = ((rows + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
    above = places.long().clamp(max=height - 1)
    below = (above + 1).clamp(max=height - 1)
    weight = (places - above).to(scores.dtype)[:, None]
    mixed = torch.lerp(scores[:, above], scores[:, below], weight)
    wide = F.interpolate(mixed[None], (stop - first, size[1]), mode="bilinear", align_corners=False)
    return wide[0]
