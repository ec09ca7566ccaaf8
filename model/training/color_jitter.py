"""Color jitter of a batch on its device, with the arithmetic of torchvision on Pillow images.

Each operation moves every pixel away from, or towards, a reference, and cuts the result off to
whole numbers: black for brightness, the rounded mean gray of the image for contrast, the pixel's
own gray for saturation. So a batch whose images have different orders takes three passes. Every
product is rounded before it is added, as Pillow does, so pixels are equal on every device.
"""

from typing import Final

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION = range(3)
_GRAY: Final = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"Weights of Pillow's gray: sums of weighted bytes are exact in float32."


def jitter_colors(pixels: Tensor, operations: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of each image in an order of its own.

    Args:
        pixels: (B, H, W, 3) uint8 RGB.
        operations: (B, K) long, numbers of the operations in their order.
        factors: (B, K) float32, by which the distance from the reference is multiplied.

    Returns:
        (B, H, W, 3) uint8 RGB.
    """
    values = pixels.to(torch.float32, copy=True)
    for operation, factor in zip(operations.T, factors.T, strict=True):
        reference = _references(values, operation.view(-1, 1, 1, 1))
        values.sub_(reference).mul_(factor.view(-1, 1, 1, 1)).add_(reference)
        values.clamp_(0, 255).trunc_()
    return values.to(torch.uint8)


def _references(values: Tensor, operation: Tensor) -> Tensor:
    """Return what each operation moves whole numbers (B, H, W, 3) from, (B, H, W, 1)."""
    red, green, blue = values.unbind(-1)
    gray = (red * _GRAY[0] + green * _GRAY[1] + blue * _GRAY[2] + 0.5).trunc_().unsqueeze(-1)
    # A sum of integers is exact and does not depend on its order.
    total, number = gray.to(torch.int32).sum((1, 2, 3)), gray[0].numel()
    mean = (2 * total + number) // (2 * number)
    constant = torch.where(operation == CONTRAST, mean.view(-1, 1, 1, 1), 0).to(gray.dtype)
    return torch.where(operation == SATURATION, gray, constant)
