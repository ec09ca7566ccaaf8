"""The smaller head: Semantic FPN (arXiv:1901.02446, section 3) on ViTDet's pyramid.

Each map passes through convolutions between which it is doubled, up to the size of the largest one,
and their sum is classified position by position. The largest map has four positions along each side
of a patch, so that a patch can say where an edge runs through it. Channels are normalized alone,
where the authors normalize groups of them over the image.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from model.finetuning.detection.pyramid import SCALES, SimpleFeaturePyramid
from model.finetuning.segmentation.settings import IGNORED

Size = tuple[int, int]
"Height and width in pixels."
_NUM_MAPS: Final = len(SCALES)


class PyramidHead(nn.Module):
    """Logits of the classes, from the last map of the encoder."""

    def __init__(
        self, width: int, num_classes: int, channels: int, class_balance: float = 0.0
    ) -> None:
        """Build the head of an encoder of width D."""
        super().__init__()
        self.class_balance = class_balance
        self.pyramid = SimpleFeaturePyramid(width, channels)
        self.branches = nn.ModuleList(_branch(number, channels) for number in range(_NUM_MAPS))
        self.classes = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classes.weight, std=0.01)
        assert self.classes.bias is not None
        nn.init.zeros_(self.classes.bias)

    def forward(self, map_: Tensor) -> Tensor:
        """Return logits (B, C, 4 h, 4 w) in fp32 of a map (B, D, h, w)."""
        maps = self.pyramid(map_)[:_NUM_MAPS]
        parts = [branch(of_map) for branch, of_map in zip(self.branches, maps, strict=True)]
        logits: Tensor = self.classes(torch.stack(parts).sum(dim=0))
        return logits.float()

    def losses(self, map_: Tensor, labels: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return the weighted mean cross-entropy (B,) over the labeled pixels of each image.

        A pixel's weight falls with the pixels of the image that have its class, to the power of
        ``class_balance``: at 0 all pixels count alike, at 1 all classes of the image.

        Args:
            map_: (B, D, h, w) of the encoder.
            labels: (B, H, W) long.
            seeds: not used; the loss draws nothing.
        """
        logits = _enlarged(self(map_), (labels.shape[1], labels.shape[2]))
        each = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        weights = _weights(labels, logits.shape[1], self.class_balance)
        total = weights.flatten(1).sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        return {"class": (each * weights).flatten(1).sum(dim=1) / total}

    @torch.no_grad()
    def scores(self, map_: Tensor, size: Size) -> Tensor:
        """Return probabilities (B, C, H, W) of images of a size."""
        return _enlarged(self(map_), size).softmax(dim=1)


def _branch(num_doublings: int, channels: int) -> nn.Sequential:
    """Return the layers of a map that is smaller by this number of doublings."""
    layers: list[nn.Module] = []
    for i in range(max(num_doublings, 1)):
        convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        layers += [convolution, LayerNorm2d(channels), nn.ReLU()]
        if i < num_doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


def _weights(labels: Tensor, num_classes: int, balance: float) -> Tensor:
    """Return the weights (B, H, W) of pixels; 0 where they are ignored."""
    is_labeled = labels != IGNORED
    classes = torch.where(is_labeled, labels, num_classes).flatten(1)
    counts = labels.new_zeros(len(labels), num_classes + 1)
    counts.scatter_add_(1, classes, torch.ones_like(classes))
    of_class = counts.clamp(min=1).float() ** -balance
    return (of_class.gather(1, classes) * is_labeled.flatten(1)).view(labels.shape)


def _enlarged(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
