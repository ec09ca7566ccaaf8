"""The smaller head: ViTDet's pyramid, whose maps are added up and classified position by position.

Its largest map has four positions along each side of a patch, so that a linear function of a patch
can say where an edge runs through it. Semantic FPN (arXiv:1901.02446) adds maps up alike.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from model.finetuning.detection.pyramid import SCALES, SimpleFeaturePyramid
from model.finetuning.segmentation.settings import IGNORED

Size = tuple[int, int]
"Height and width in pixels."


class PyramidHead(nn.Module):
    """Logits of the classes, from the last map of the encoder."""

    def __init__(self, width: int, num_classes: int, channels: int) -> None:
        """Build the head of an encoder of width D."""
        super().__init__()
        self.pyramid = SimpleFeaturePyramid(width, channels)
        self.norm = LayerNorm2d(channels)
        self.classes = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classes.weight, std=0.01)
        assert self.classes.bias is not None
        nn.init.zeros_(self.classes.bias)

    def forward(self, map_: Tensor) -> Tensor:
        """Return logits (B, C, 4 h, 4 w) in fp32 of a map (B, D, h, w)."""
        first, *others = self.pyramid(map_)[: len(SCALES)]
        for other in others:
            first = first + F.interpolate(
                other, first.shape[2:], mode="bilinear", align_corners=False
            )
        logits: Tensor = self.classes(F.gelu(self.norm(first)))
        return logits.float()

    def losses(self, map_: Tensor, labels: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return the mean cross-entropy (B,) over the labeled pixels of each image.

        Args:
            map_: (B, D, h, w) of the encoder.
            labels: (B, H, W) long.
            seeds: not used; the loss draws nothing.
        """
        logits = _enlarged(self(map_), (labels.shape[1], labels.shape[2]))
        each = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        number = (labels != IGNORED).flatten(1).sum(dim=1).clamp(min=1)
        return {"class": each.flatten(1).sum(dim=1) / number}

    @torch.no_grad()
    def scores(self, map_: Tensor, size: Size) -> Tensor:
        """Return probabilities (B, C, H, W) of images of a size."""
        return _enlarged(self(map_), size).softmax(dim=1)


def _enlarged(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
