"""LayerNorm inside the blocks: what enters and leaves is of the products' type."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-5


class LayerNorm(nn.LayerNorm):
    """LayerNorm that autocast leaves in bf16; mean and variance are taken in fp32 all the same.

    Autocast would have it read, write and keep fp32, and cast the result for the product behind it.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D), in autocast's type where it is on."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(x)
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            weight, bias = self.weight.to(dtype), self.bias.to(dtype)
            return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps)
