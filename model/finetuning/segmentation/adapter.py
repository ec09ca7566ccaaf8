"""ViT-Adapter (arXiv:2205.08534): the plain encoder, and beside it maps of several scales.

The encoder's blocks are cut into four groups. Before each group its patches read from the maps of
the spatial prior (injector), after it the maps read from the patches (extractor). At first
injectors add nothing, so that the encoder begins as it was pretrained. Two more extractors follow
the last. The patches after the groups are added to the maps, those after the first to the largest.

Differences from the authors' code: channels are normalized alone (see ``spatial_prior.py``), there
is no stochastic depth in the extractors, and patches of any size are resized to the maps.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from model.finetuning.dense_backbone import DenseBackbone, Grid
from model.finetuning.segmentation.deformable import DeformableAttention, Shape, centers
from model.finetuning.segmentation.settings import AdapterSizes
from model.finetuning.segmentation.spatial_prior import STRIDES, SpatialPrior
from model.network.beit3 import INIT_STD
from model.network.recomputing import run

MULTIPLE: Final = STRIDES[-1]
"The sides of an image are multiples of this, so that every map covers it exactly."
_NUM_MAPS: Final = len(STRIDES) - 1
"Maps that exchange features with the encoder; the largest does not."
_NUM_EXTRA: Final = 2


class Injector(nn.Module):
    """Patches read from the maps."""

    def __init__(self, width: int, sizes: AdapterSizes) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=1e-6)
        self.map_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = DeformableAttention(
            width, sizes.num_heads, _NUM_MAPS, sizes.num_points, sizes.value_ratio
        )
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, grid: Grid, maps: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """Return the patches (B, N, D) with what they read from maps (B, S, D)."""
        places = centers([grid], x.device)
        read = self.attention(self.query_norm(x), places, self.map_norm(maps), shapes)
        return x + self.scale * read


class Extractor(nn.Module):
    """Maps read from the patches, then pass through a feed-forward network with a convolution."""

    def __init__(self, width: int, sizes: AdapterSizes) -> None:
        super().__init__()
        hidden = max(round(width * sizes.hidden_ratio), 1)
        self.query_norm = nn.LayerNorm(width, eps=1e-6)
        self.map_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = DeformableAttention(
            width, sizes.num_heads, 1, sizes.num_points, sizes.value_ratio
        )
        self.ffn_norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, hidden)
        self.convolution = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor, shapes: Sequence[Shape], x: Tensor, grid: Grid) -> Tensor:
        """Return the maps (B, S, D) with what they read from patches (B, N, D)."""
        places = centers(shapes, x.device)
        maps = maps + self.attention(self.query_norm(maps), places, self.map_norm(x), [grid])
        hidden = [
            self.convolution(_as_map(of_map, shape))
            for of_map, shape in zip(
                _split(self.fc1(self.ffn_norm(maps)), shapes), shapes, strict=True
            )
        ]
        return maps + self.fc2(F.gelu(_flattened(hidden)))


class ViTAdapter(nn.Module):
    """Four maps of an image, from an encoder that is not part of this module."""

    def __init__(self, width: int, sizes: AdapterSizes) -> None:
        """Build the adapter of an encoder of width D."""
        super().__init__()
        self.prior = SpatialPrior(sizes.channels, width)
        self.levels = nn.Parameter(torch.randn(_NUM_MAPS, width))
        self.injectors = nn.ModuleList(Injector(width, sizes) for _ in STRIDES)
        self.extractors = nn.ModuleList(
            Extractor(width, sizes) for _ in range(len(STRIDES) + _NUM_EXTRA)
        )
        self.enlarge = nn.ConvTranspose2d(width, width, 2, 2)
        self.norms = nn.ModuleList(LayerNorm2d(width) for _ in STRIDES)

    def forward(
        self, backbone: DenseBackbone, images: Tensor, residual_scale: Tensor | None = None
    ) -> list[Tensor]:
        """Return maps (B, D, H / stride, W / stride) for strides of 4, 8, 16 and 32 pixels.

        Args:
            backbone: of width D; its last LayerNorm is not applied.
            images: (B, 3, H, W) float, normalized; the sides are multiples of the patch size and
                of ``MULTIPLE``.
            residual_scale: (depth, 2, B) float, factors of the residual branches.
        """
        first, *others = self.prior(images)
        shapes = [(map_.shape[2], map_.shape[3]) for map_ in others]
        levels = self.levels.repeat_interleave(
            torch.tensor([rows * columns for rows, columns in shapes], device=images.device), dim=0
        )
        maps = _flattened(others) + levels
        x, grid = backbone.embed(images)
        kept, seen = backbone.network.activation_checkpointing, []
        for number, injector in enumerate(self.injectors):
            patches = run(injector, kept, x[:, 1:], grid, maps, shapes)
            x = torch.cat([x[:, :1], patches.to(x)], dim=1)
            x = backbone.through(x, grid, *group(number, backbone), residual_scale)
            maps = run(self.extractors[number], kept, maps, shapes, x[:, 1:], grid)
            seen.append(_as_map(x[:, 1:], grid))
        for extractor in self.extractors[len(self.injectors) :]:
            maps = run(extractor, kept, maps, shapes, x[:, 1:], grid)
        others = [_as_map(*pair) for pair in zip(_split(maps, shapes), shapes, strict=True)]
        found = [first + self.enlarge(others[0]), *others]
        return [
            norm(map_ + _resized(patches, map_))
            for norm, map_, patches in zip(self.norms, found, seen, strict=True)
        ]


def group(number: int, backbone: DenseBackbone) -> tuple[int, int]:
    """Return the first block of a group, and the one after its last; groups have equal sizes."""
    depth = backbone.network.config.depth
    return number * depth // len(STRIDES), (number + 1) * depth // len(STRIDES)


def _resized(map_: Tensor, like: Tensor) -> Tensor:
    if map_.shape[2:] == like.shape[2:]:
        return map_
    return F.interpolate(map_, like.shape[2:], mode="bilinear", align_corners=False)


def _flattened(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([map_.flatten(2).transpose(1, 2) for map_ in maps], dim=1)


def _split(maps: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return maps.split([rows * columns for rows, columns in shapes], dim=1)


def _as_map(flat: Tensor, shape: Shape) -> Tensor:
    return flat.transpose(1, 2).unflatten(2, shape)
