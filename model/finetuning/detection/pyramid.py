"""ViTDet's simple feature pyramid: five maps from the last map of a plain encoder (section 3)."""

from typing import Final

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

SCALES: Final = (4.0, 2.0, 1.0, 0.5)
"Size of each map, as a multiple of the encoder's; one more is half the last."
NUM_LEVELS: Final = len(SCALES) + 1
STRIDE_MULTIPLE: Final = 4
"The sides of an image are multiples of this many patches, so that every map covers it exactly."


class SimpleFeaturePyramid(nn.Module):
    """Maps of several scales, each from the encoder's map alone: there is no path between them."""

    def __init__(self, width: int, channels: int) -> None:
        """Build the pyramid of a map of ``width`` channels."""
        super().__init__()
        self.levels = nn.ModuleList(_level(scale, width, channels) for scale in SCALES)

    def forward(self, map_: Tensor) -> list[Tensor]:
        """Return maps (B, channels, h, w), largest first, of a map (B, D, H, W)."""
        maps: list[Tensor] = [level(map_) for level in self.levels]
        return [*maps, F.max_pool2d(maps[-1], kernel_size=1, stride=2)]


def strides(patch_size: int) -> list[int]:
    """Return the pixels between neighboring positions of each map.

    Raises:
        ValueError: they are no whole numbers; anchors and boxes would lie beside the pixels.
    """
    if patch_size % SCALES[0]:
        raise ValueError(
            f"patches of {patch_size} pixels; the pyramid needs a multiple of {SCALES[0]:g}, such "
            "as 16, to which interpolate the kernel"
        )
    found = [int(patch_size / scale) for scale in SCALES]
    return [*found, 2 * found[-1]]


def _level(scale: float, width: int, channels: int) -> nn.Sequential:
    resized: dict[float, tuple[list[nn.Module], int]] = {
        4.0: (
            [
                nn.ConvTranspose2d(width, width // 2, 2, 2),
                LayerNorm2d(width // 2),
                nn.GELU(),
                nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
            ],
            width // 4,
        ),
        2.0: ([nn.ConvTranspose2d(width, width // 2, 2, 2)], width // 2),
        1.0: ([], width),
        0.5: ([nn.MaxPool2d(2, 2)], width),
    }
    layers, inner = resized[scale]
    return nn.Sequential(
        *layers,
        nn.Conv2d(inner, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )
