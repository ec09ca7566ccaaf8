"""Cascade R-CNN (arXiv:1906.09756): three box heads, each of which refines the boxes of the last.

A head is trained on boxes that overlap an object more than those of the head before it. Boxes are
refined alike for all classes. The score of a box is the mean of the three heads' probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import box_iou, clip_boxes_to_image

from model.finetuning.detection.pooling import full, pool
from model.finetuning.detection.sampling import sample
from model.finetuning.detection.settings import DetectorSizes
from model.finetuning.detection.targets import Objects

MIN_IOU: Final = (0.5, 0.6, 0.7)
"Overlap with an object from which on a box is trained to be it, by head."
BOX_WEIGHTS: Final = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
"Factors of the differences in x, y, width and height that each head predicts."
_POOLED: Final = 7
_PURPOSE: Final = 1


@dataclass(frozen=True)
class Matched:
    """Boxes of one image, and the object that each of them is."""

    boxes: Tensor
    "(n, 4)."
    object: Tensor
    "(n,) long, index of the object with the largest overlap; 0 if the image has none."
    classes: Tensor
    "(n,) long, class of that object; C, the background, if the overlap is too small."


class BoxHead(nn.Module):
    """Scores of classes and the refinement of a box, from its features."""

    def __init__(self, sizes: DetectorSizes, num_classes: int, weights: Sequence[float]) -> None:
        super().__init__()
        self.coder = BoxCoder(tuple(weights))
        self.layers = FastRCNNConvFCHead(
            (sizes.channels, _POOLED, _POOLED),
            [sizes.channels] * sizes.num_convolutions,
            [sizes.hidden],
            norm_layer=LayerNorm2d,
        )
        self.classes = nn.Linear(sizes.hidden, num_classes + 1)
        self.box = nn.Linear(sizes.hidden, 4)
        for layer, std in ((self.classes, 0.01), (self.box, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (n, C + 1) and refinements (n, 4) in fp32, of features (n, c, 7, 7)."""
        hidden = self.layers(features)
        return full(self.classes(hidden)), full(self.box(hidden))


class Cascade(nn.ModuleList):
    """The three heads."""

    def __init__(self, sizes: DetectorSizes, num_classes: int) -> None:
        super().__init__(BoxHead(sizes, num_classes, weights) for weights in BOX_WEIGHTS)
        self.num_classes, self.num_trained = num_classes, sizes.num_trained

    def losses(
        self,
        maps: Sequence[Tensor],
        strides: Sequence[int],
        proposals: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        objects: Sequence[Objects],
        seeds: Sequence[int],
    ) -> tuple[dict[str, Tensor], list[Matched]]:
        """Return losses (B,) of each head, and the boxes that the first one was trained on.

        Args:
            maps: of the pyramid.
            strides: of the maps.
            proposals: (n, 4) of each image.
            sizes: height and width of each image.
            objects: annotated ones of each image.
            seeds: of each image in this step.
        """
        first = [
            self._sampled(boxes, some, seed)
            for boxes, some, seed in zip(proposals, objects, seeds, strict=True)
        ]
        matched, losses = first, dict[str, Tensor]()
        for number, head in enumerate(self):
            boxes = [each.boxes for each in matched]
            features = _ScaledGradient.apply(pool(maps, boxes, strides, _POOLED), 1 / len(self))
            scores, deltas = head(features)
            losses |= {
                f"{name}_{number + 1}": loss
                for name, loss in _losses(head.coder, scores, deltas, matched, objects).items()
            }
            refined = _refined(head.coder, deltas.detach(), boxes, sizes, keep_empty=False)
            matched = [
                match(some, of_image, min_iou, self.num_classes)
                for min_iou in MIN_IOU[number + 1 : number + 2]
                for some, of_image in zip(refined, objects, strict=True)
            ]
        return losses, first

    def detect(
        self,
        maps: Sequence[Tensor],
        strides: Sequence[int],
        proposals: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the boxes (n, 4) of each image with scores (n, C) of the classes.

        The arguments are those of :meth:`losses`.
        """
        boxes = list(proposals)
        total: Tensor | float = 0.0
        for head in self:
            scores, deltas = head(pool(maps, boxes, strides, _POOLED))
            total = total + scores.softmax(dim=1)
            boxes = _refined(head.coder, deltas, boxes, sizes, keep_empty=True)
        assert isinstance(total, Tensor)
        means = (total / len(self))[:, :-1].split([len(some) for some in boxes])
        return list(zip(boxes, means, strict=True))

    def _sampled(self, proposals: Tensor, objects: Objects, seed: int) -> Matched:
        """Return the sampled boxes of an image, among which its objects may be."""
        boxes = torch.cat([proposals, objects.boxes])
        found = match(boxes, objects, MIN_IOU[0], self.num_classes)
        is_object = found.classes < self.num_classes
        number = self.num_trained
        some = sample(is_object, ~is_object, number, number // 4, seed, _PURPOSE)
        return Matched(found.boxes[some], found.object[some], found.classes[some])


def match(boxes: Tensor, objects: Objects, min_iou: float, background: int) -> Matched:
    """Return the object that each box is: that of the largest overlap, if it is large enough."""
    if not len(objects):
        index = boxes.new_zeros(len(boxes), dtype=torch.long)
        return Matched(boxes, index, torch.full_like(index, background))
    overlap, index = box_iou(objects.boxes, boxes).max(dim=0)
    classes = torch.where(overlap >= min_iou, objects.classes[index], background)
    return Matched(boxes, index, classes)


def _losses(
    coder: BoxCoder,
    scores: Tensor,
    deltas: Tensor,
    matched: Sequence[Matched],
    objects: Sequence[Objects],
) -> dict[str, Tensor]:
    counts = [len(each.boxes) for each in matched]
    background = scores.shape[1] - 1
    classes, boxes = [], []
    parts = zip(scores.split(counts), deltas.split(counts), matched, objects, strict=True)
    for score, delta, found, of_image in parts:
        number = max(len(found.boxes), 1)
        classes.append(F.cross_entropy(score, found.classes, reduction="sum") / number)
        positive = (found.classes < background).nonzero()[:, 0]
        targets = of_image.boxes[found.object[positive]]
        wanted = coder.encode_single(targets, found.boxes[positive])
        boxes.append((delta[positive] - wanted).abs().sum() / number)
    return {"class": torch.stack(classes), "box": torch.stack(boxes)}


def _refined(
    coder: BoxCoder,
    deltas: Tensor,
    boxes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    *,
    keep_empty: bool,
) -> list[Tensor]:
    """Return refined boxes (n, 4) of each image within it."""
    counts = [len(some) for some in boxes]
    found = coder.decode_single(deltas, torch.cat(list(boxes))).split(counts)
    clipped = [clip_boxes_to_image(some, size) for some, size in zip(found, sizes, strict=True)]
    if keep_empty:
        return clipped
    return [some[(some[:, 2:] > some[:, :2]).all(dim=1)] for some in clipped]


class _ScaledGradient(torch.autograd.Function):
    """The identity; its gradient is multiplied, so that all heads together weigh as one does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None
