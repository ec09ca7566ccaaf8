"""Detections of one image at several scales and mirrored: boxes are joined, masks are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from model.finetuning.detection.network import Detections, ForDetection, Size
from model.finetuning.detection.settings import Choice
from model.finetuning.detection.suppression import suppressed


@dataclass(frozen=True)
class ScaledImage:
    """One of the forms in which a network sees an image."""

    image: Tensor
    "(3, H, W) float, normalized and padded at right and bottom."
    size: Size
    "Height and width without padding."
    flipped: bool
    "Whether left and right are exchanged."


def detect_multiscale(
    network: ForDetection, views: Sequence[ScaledImage], size: Size, choice: Choice
) -> Detections:
    """Return the objects of an image, with boxes in pixels of ``size``.

    All scored boxes of all views are candidates of one suppression. The mask of a box that is left
    is the mean of its probabilities in the views.

    Args:
        network: in evaluation mode.
        views: at least one.
        size: height and width that boxes refer to.
        choice: how detections are chosen.
    """
    boxes, scores, maps = [], [], []
    for view in views:
        scored, of_view = network.scored_boxes(view.image[None], [view.size])
        boxes.append(_moved(scored[0][0], view, view.size, size))
        scores.append(scored[0][1])
        maps.append(of_view)
    candidates = clip_boxes_to_image(torch.cat(boxes), size)
    index, classes, found = suppressed(candidates, torch.cat(scores), choice)
    chosen = candidates[index]
    masks = []
    for view, of_view in zip(views, maps, strict=True):
        made = network.masks_of(of_view, [_moved(chosen, view, size, view.size)], [classes])
        if made is not None:
            masks.append(made[0].flip(2) if view.flipped else made[0])
    return Detections(chosen, found, classes, torch.stack(masks).mean(dim=0) if masks else None)


def _moved(boxes: Tensor, view: ScaledImage, old: Size, new: Size) -> Tensor:
    """Return boxes of an image of size ``old`` in the one of ``new``; one of the two is the view's.

    Mirroring is its own inverse, so both directions are the same.
    """
    scale = boxes.new_tensor([new[1] / old[1], new[0] / old[0]] * 2)
    moved = boxes * scale
    if not view.flipped:
        return moved
    left, top, right, bottom = moved.unbind(1)
    return torch.stack([new[1] - right, top, new[1] - left, bottom], dim=1)
