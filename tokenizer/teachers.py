"""Teachers of VQ-KD: frozen, from pictures to a feature per patch.

``hand_crafted`` needs no weights: histograms of oriented gradients and colours of each patch. It
serves machines without a network's weights and says what it is; the paper's teacher is CLIP
(``clip``), taken from timm with weights from a local file.
"""

import math
from pathlib import Path
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TeacherName = Literal["hand_crafted", "clip"]

_CLIP_MODEL: Final = "vit_base_patch16_clip_224.openai"
_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
_ORIENTATIONS: Final = 8
_CELLS: Final = 2
_COLOUR_WEIGHT: Final = 1.5


def make_teacher(name: TeacherName, grid: int, weights: Path | None) -> nn.Module:
    """Return a frozen teacher for pictures of ``grid`` patches a side.

    Its forward takes (B, 3, H, W) in [-1, 1] and gives (B, N, ``dim``).

    Raises:
        FileNotFoundError: the weights of a network are not there.
    """
    if name == "hand_crafted":
        teacher: nn.Module = HandCrafted(grid)
    else:
        if weights is None or not weights.is_file():
            raise FileNotFoundError(f"teacher {name}: no weights at {weights}")
        teacher = Clip(grid, weights)
    return teacher.eval().requires_grad_(False)


class HandCrafted(nn.Module):
    """Gradient orientations and colours, both in 2 x 2 cells of each patch."""

    dim: Final = _CELLS**2 * (_ORIENTATIONS + 3)

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, N, dim)."""
        grey = images.mean(1, keepdim=True)
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2])[:, 0]
        dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1])[:, 0]
        strength = (dx.square() + dy.square()).sqrt()
        angle = torch.atan2(dy, dx).remainder(math.pi) * (_ORIENTATIONS / math.pi)
        # Each gradient is shared between the two nearest orientations, so small turns move little.
        lower = angle.floor().long() % _ORIENTATIONS
        share = angle - angle.floor()
        histogram = F.one_hot(lower, _ORIENTATIONS) * (strength * (1 - share))[..., None]
        histogram += (
            F.one_hot((lower + 1) % _ORIENTATIONS, _ORIENTATIONS) * (strength * share)[..., None]
        )
        orientations = self._cells(histogram.permute(0, 3, 1, 2))
        colours = self._cells(images) * _COLOUR_WEIGHT
        # The root tames the few very strong edges.
        return torch.cat([orientations.sqrt(), colours], dim=-1)

    def _cells(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, N, 4 C): means over the cells of each patch."""
        batch, channels = maps.shape[:2]
        cells = F.adaptive_avg_pool2d(maps, self.grid * _CELLS)
        cells = cells.view(batch, channels, self.grid, _CELLS, self.grid, _CELLS)
        return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.grid**2, -1)


class Clip(nn.Module):
    """CLIP ViT-B/16: patch tokens after the projection, on pictures resized to fit the grid."""

    dim: Final = 512
    mean: Tensor
    std: Tensor

    def __init__(self, grid: int, weights: Path) -> None:
        super().__init__()
        import timm

        self.size = grid * 16
        self.network = timm.create_model(
            _CLIP_MODEL,
            pretrained=True,
            img_size=self.size,
            pretrained_cfg_overlay={
                "file": str(weights),
                "num_classes": self.dim,
            },
            num_classes=self.dim,
        )
        self.register_buffer("mean", torch.tensor(_CLIP_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_CLIP_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, N, dim)."""
        images = F.interpolate(images, self.size, mode="bicubic", align_corners=False)
        images = ((images + 1) / 2 - self.mean) / self.std
        tokens = self.network.forward_features(images)
        return self.network.head(tokens[:, 1:])
