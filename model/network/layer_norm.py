"""LayerNorm of the blocks: under autocast its input and output have autocast's type."""

import importlib.util
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-5
HAS_TRITON: Final = importlib.util.find_spec("triton") is not None
FUSED_WIDTHS: Final = range(2, 8193)
"Widths of a row that the registers of one program of the fused kernel hold."

if HAS_TRITON:
    from model.network.fused_norm import fused_norm


def norm_kernel(device: torch.device) -> Literal["fused", "eager"]:
    """Return the kernel of :class:`SubLayerNorm` on a device: ``fused`` on a GPU with Triton."""
    return "fused" if HAS_TRITON and device.type == "cuda" else "eager"


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


class SubLayerNorm(LayerNorm):
    """Magneto's LayerNorm before the output matrix, with GELU before it in an expert.

    Its input comes from a matrix product or attention and its output goes into a matrix product, so
    a compiler finds nothing to fuse with it. One kernel (``fused_norm.py``) computes it on a GPU
    with Triton; elsewhere, and where ``fused`` is False, PyTorch does.
    """

    def __init__(self, width: int, *, gelu: bool = False) -> None:
        super().__init__(width)
        self.gelu = gelu
        self.fused = True

    def forward(self, x: Tensor) -> Tensor:
        """Apply GELU if ``gelu`` is set, then normalize (…, D) → (…, D)."""
        device = x.device
        if self.fused and norm_kernel(device) == "fused" and _fits(x):
            if torch.is_autocast_enabled(device.type):
                x = x.to(torch.get_autocast_dtype(device.type))
            rows = x.reshape(-1, x.shape[-1]).contiguous()
            return fused_norm(rows, self.weight, self.bias, self.eps, self.gelu)[0].view(x.shape)
        return super().forward(F.gelu(x) if self.gelu else x)


def _fits(x: Tensor) -> bool:
    return x.shape[-1] in FUSED_WIDTHS and x.dtype != torch.float64
