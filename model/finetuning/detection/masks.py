"""The mask head of Mask R-CNN (arXiv:1703.06870): a mask of each class for each box.

Masks are learned in the frame of their box, at a few positions; :func:`pasted` puts them into the
image.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import roi_align

from model.finetuning.detection.cascade import Matched
from model.finetuning.detection.pooling import full, pool
from model.finetuning.detection.settings import DetectorSizes
from model.finetuning.detection.targets import Objects

_POOLED: Final = 14
MASK_SIDE: Final = 2 * _POOLED
"Rows and columns of a mask in the frame of its box."
_THRESHOLD: Final = 0.5


class MaskHead(nn.Module):
    """Masks of boxes."""

    def __init__(self, sizes: DetectorSizes, num_classes: int) -> None:
        super().__init__()
        channels = sizes.channels
        self.layers = MaskRCNNHeads(
            channels, [channels] * sizes.num_convolutions, 1, norm_layer=LayerNorm2d
        )
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.classes = nn.Conv2d(channels, num_classes, 1)
        nn.init.kaiming_normal_(self.enlarge.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classes.weight, std=0.001)
        for layer in (self.enlarge, self.classes):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        maps: Sequence[Tensor],
        strides: Sequence[int],
        boxes: Sequence[Tensor],
        classes: Tensor,
    ) -> Tensor:
        """Return logits (n, 28, 28) in fp32 of the masks of boxes, each of its own class.

        Args:
            maps: of the pyramid.
            strides: of the maps.
            boxes: (n_i, 4) of each image.
            classes: (n,) long of all boxes.
        """
        x = self.layers(pool(maps, boxes, strides, _POOLED))
        logits = full(self.classes(F.relu(self.enlarge(x))))
        return logits[torch.arange(len(classes), device=classes.device), classes]

    def losses(
        self,
        maps: Sequence[Tensor],
        strides: Sequence[int],
        matched: Sequence[Matched],
        objects: Sequence[Objects],
        background: int,
    ) -> Tensor:
        """Return the loss (B,): mean cross-entropy over positions and boxes that are an object.

        Boxes of objects without an annotated mask are left out; an image without any has loss 0.
        """
        chosen = [_with_mask(*pair, background) for pair in zip(matched, objects, strict=True)]
        boxes = [some.boxes for some in chosen]
        logits = self(maps, strides, boxes, torch.cat([some.classes for some in chosen]))
        losses = []
        for some, of_image, found in zip(
            chosen, objects, logits.split([len(b) for b in boxes]), strict=True
        ):
            wanted = cut_out(of_image.masks, some.object, some.boxes)
            loss = F.binary_cross_entropy_with_logits(found, wanted, reduction="sum")
            losses.append(loss / max(found.numel(), 1))
        return torch.stack(losses)


def _with_mask(matched: Matched, objects: Objects, background: int) -> Matched:
    some = matched.classes < background
    if len(objects):
        some = some & objects.has_mask[matched.object]
    return Matched(matched.boxes[some], matched.object[some], matched.classes[some])


def cut_out(masks: Tensor, index: Tensor, boxes: Tensor) -> Tensor:
    """Return the masks of some objects in the frames of boxes, (n, 28, 28) of 0 and 1.

    Args:
        masks: (objects, H, W) bool.
        index: (n,) long, the object of each box.
        boxes: (n, 4).
    """
    if not len(boxes):
        return boxes.new_zeros(0, MASK_SIDE, MASK_SIDE)
    rois = torch.cat([index[:, None].to(boxes), boxes], dim=1)
    values = roi_align(masks[:, None].to(boxes), rois, MASK_SIDE, aligned=True)
    return (values[:, 0] >= _THRESHOLD).to(boxes)


def pasted(probabilities: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the masks (n, height, width) bool of an image; a pixel belongs to one from 0.5 on.

    Args:
        probabilities: (n, 28, 28) in the frames of the boxes.
        boxes: (n, 4) in pixels of this image.
        height: of the image.
        width: of the image.
    """
    masks = boxes.new_zeros(len(boxes), height, width, dtype=torch.bool)
    parts = pasted_parts(probabilities, boxes, height, width)
    for mask, (part, left, top) in zip(masks, parts, strict=True):
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return masks


def pasted_parts(
    probabilities: Tensor, boxes: Tensor, height: int, width: int
) -> Iterator[tuple[Tensor, int, int]]:
    """Yield the part of each mask of :func:`pasted` that its box covers, with its left and top.

    The whole masks of a photo of 12 million pixels take a gigabyte, and seconds each ten.
    """
    for values, box in zip(probabilities, boxes, strict=True):
        left, top, right, bottom = box.tolist()
        columns = slice(*(min(max(side, 0), width) for side in (int(left), ceil(right))))
        rows = slice(*(min(max(side, 0), height) for side in (int(top), ceil(bottom))))
        across = torch.arange(columns.start, columns.stop, device=box.device) + 0.5
        down = torch.arange(rows.start, rows.stop, device=box.device) + 0.5
        x = 2 * (across - box[0]) / (box[2] - box[0]).clamp(min=1e-6) - 1
        y = 2 * (down - box[1]) / (box[3] - box[1]).clamp(min=1e-6) - 1
        shape = (len(down), len(across))
        is_inside = (x.abs() <= 1)[None, :] & (y.abs() <= 1)[:, None]
        if not is_inside.any():
            yield is_inside, columns.start, rows.start
            continue
        places = torch.stack([x[None, :].expand(shape), y[:, None].expand(shape)], dim=2)
        found = F.grid_sample(values[None, None].to(box), places[None], align_corners=False)
        yield (found[0, 0] >= _THRESHOLD) & is_inside, columns.start, rows.start
