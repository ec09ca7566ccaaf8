"""LayerNorm of the blocks: under autocast its input and output have autocast's type."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-5


class LayerNorm(nn.LayerNorm):
    """LayerNorm in bf16 under autocast; its mean and variance are computed in fp32.

    Autocast's own rule reads, writes and keeps fp32 for the backward and casts the result again for
    the following matrix product.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (…, D) → (…, D), in autocast's type if autocast is on."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(x)
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            weight, bias = self.weight.to(dtype), self.bias.to(dtype)
            return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps)
