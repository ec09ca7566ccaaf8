"""ViT-Adapter's spatial prior: four maps of an image by convolutions (section 3.2).

Channels are normalized as by LayerNorm. The authors normalize over the batch of all workers; then
the features of an image depend on the other images.
"""

from itertools import pairwise
from typing import Final

from timm.layers import LayerNorm2d
from torch import Tensor, nn

STRIDES: Final = (4, 8, 16, 32)
"Pixels between neighboring positions of each map."
_GROWTH: Final = (1, 2, 4, 4)
"Channels of each map before the last layer, as multiples of the first."


class SpatialPrior(nn.Module):
    """Maps of four scales, each from the one before it."""

    def __init__(self, channels: int, width: int) -> None:
        """Build the convolutions; ``channels`` are those of the first ones, ``width`` is D."""
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(3, channels, 2),
            *_convolution(channels, channels, 1),
            *_convolution(channels, channels, 1),
            nn.MaxPool2d(3, 2, 1),
        )
        sizes = [channels * factor for factor in _GROWTH]
        self.halvings = nn.ModuleList(
            nn.Sequential(*_convolution(before, after, 2)) for before, after in pairwise(sizes)
        )
        self.projections = nn.ModuleList(nn.Conv2d(size, width, 1) for size in sizes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps (B, D, H / stride, W / stride), largest first, of images (B, 3, H, W)."""
        maps = [self.stem(images)]
        for halving in self.halvings:
            maps.append(halving(maps[-1]))
        return [layer(map_) for layer, map_ in zip(self.projections, maps, strict=True)]


def _convolution(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return [convolution, LayerNorm2d(channels_out), nn.ReLU()]
