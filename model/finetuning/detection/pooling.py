"""Features of boxes, each from the map of the pyramid that fits its size."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torchvision.ops import roi_align

_CANONICAL_SIDE: Final = 224
"A box of this many pixels is pooled at stride 16 (arXiv:1612.03144, equation 1)."
_CANONICAL_STRIDE: Final = 16


def full(x: Tensor) -> Tensor:
    """Return a tensor in fp32, or in its own type if that has more digits: bf16 has too few."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def levels_of(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Return the number of the map that each box (n, 4) is pooled from, (n,) long."""
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    finest = math.log2(_CANONICAL_STRIDE / strides[0])
    levels = torch.floor(finest + torch.log2(sides / _CANONICAL_SIDE + 1e-8))
    return levels.clamp(0, len(strides) - 1).long()


def pool(
    maps: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int], size: int
) -> Tensor:
    """Return features (n, channels, size, size) in fp32 of the boxes of all images.

    Values are sampled at exact positions (RoIAlign with half-pixel offset, as in Detectron2).

    Args:
        maps: (B, channels, h, w) each; the coarsest map of a pyramid is for proposals alone.
        boxes: (n_i, 4) of each image.
        strides: pixels between positions of each map.
        size: rows and columns of the result.
    """
    maps = [full(map_) for map_ in maps]
    numbers = [torch.full((len(some), 1), float(i)) for i, some in enumerate(boxes)]
    flat = torch.cat(list(boxes))
    rois = torch.cat([torch.cat(numbers).to(flat), flat], dim=1)
    levels = levels_of(flat, strides)
    parts = [levels == level for level in range(len(strides))]
    found = [
        roi_align(map_, rois[part].to(map_), size, 1 / stride, aligned=True)
        for map_, part, stride in zip(maps, parts, strides, strict=True)
    ]
    order = torch.cat([part.nonzero()[:, 0] for part in parts])
    return torch.cat(found)[order.argsort()]
