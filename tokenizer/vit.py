"""A plain vision Transformer with the parameter names of BEiT v2's tokenizer.

VQ-KD uses it twice: as encoder of pixels and, with patch size 1, as decoder of codes.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Patch embedding: a convolution with a stride of one patch."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, N, D)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention; as in BEiT, keys have no bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, S, D)."""
        batch, length, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        return self.proj(x)


class Mlp(nn.Module):
    """Feed-forward network: two linear layers with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, S, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm Transformer block."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, S, D)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def interpolate_positions(positions: Tensor, grid: int) -> Tensor:
    """Resize a position table (1, 1 + N, D) bicubically to (1, 1 + grid^2, D).

    The first row, the class token's, is kept.

    Raises:
        ValueError: N is no square.
    """
    num_patches, width = positions.shape[1] - 1, positions.shape[2]
    old = math.isqrt(num_patches)
    if old * old != num_patches:
        raise ValueError(f"the position table has {num_patches} patches, which are no square grid")
    square = positions[:, 1:].float().reshape(1, old, old, width).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    patches = square.permute(0, 2, 3, 1).reshape(1, grid * grid, width)
    return torch.cat([positions[:, :1], patches.to(positions.dtype)], dim=1)


class VisionTransformer(nn.Module):
    """Encoder of a square input into one feature per patch."""

    def __init__(
        self, *, channels: int, grid: int, patch: int, width: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(channels, patch, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize as BEiT: truncated normal; output matrices of block l divided by sqrt(2 l)."""
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for layer, block in enumerate(cast("list[Block]", list(self.blocks)), start=1):
                block.attn.proj.weight.div_(math.sqrt(2 * layer))
                block.mlp.fc2.weight.div_(math.sqrt(2 * layer))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, N, D): patch features, without the class token."""
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x[:, 1:])
