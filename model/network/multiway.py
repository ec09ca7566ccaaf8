"""The Multiway block (paper, section 2.1): attention over both modalities, an expert for each.

A sequence holds its vision part first. Routing is a split at one place, never a gather: an expert
sees no token that is not its own, and a sequence of one modality touches no other expert.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.config import BEiT3Config

LAYER_NORM_EPS = 1e-5


class Multiway(nn.Module):
    """One module per modality, applied to the two parts of a sequence."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.vision = make()
        self.language = make()

    def forward(self, x: Tensor, split: int) -> Tensor:
        """(B, S, D) → (B, S, …); ``split`` is the length of the vision part."""
        if split == x.shape[1]:
            return self.vision(x)
        if split == 0:
            return self.language(x)
        return torch.cat([self.vision(x[:, :split]), self.language(x[:, split:])], dim=1)


class Shared(nn.Module):
    """One module for both modalities, called like :class:`Multiway`."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.both = make()

    def forward(self, x: Tensor, split: int) -> Tensor:
        """(B, S, D) → (B, S, …)."""
        return self.both(x)


class Attention(nn.Module):
    """Multi-head self-attention over the whole sequence, q, k and v in one product."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        width = config.width
        form = Shared if config.attention == "shared" else Multiway
        self.heads = config.heads
        self.qkv = form(lambda: nn.Linear(width, 3 * width))
        self.inner_norm = (
            form(lambda: nn.LayerNorm(width, LAYER_NORM_EPS)) if config.subln else None
        )
        self.out = form(lambda: nn.Linear(width, width))

    def forward(self, x: Tensor, split: int, mask: Tensor | None) -> Tensor:
        """(B, S, D) → (B, S, D); ``mask`` broadcasts to (B, H, S, S), True = may attend."""
        batch, length, width = x.shape
        qkv = self.qkv(x, split).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x.transpose(1, 2).reshape(batch, length, width)
        if self.inner_norm is not None:
            x = self.inner_norm(x, split)
        return self.out(x, split)


class Expert(nn.Module):
    """A feed-forward network with the LayerNorm in front of it."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, LAYER_NORM_EPS)
        self.fc1 = nn.Linear(config.width, config.ffn_width)
        self.inner_norm = nn.LayerNorm(config.ffn_width, LAYER_NORM_EPS) if config.subln else None
        self.fc2 = nn.Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, S, D)."""
        x = F.gelu(self.fc1(self.norm(x)))
        if self.inner_norm is not None:
            x = self.inner_norm(x)
        return self.fc2(x)


class Block(nn.Module):
    """Attention, then experts; each with a residual connection and stochastic depth."""

    def __init__(self, config: BEiT3Config, fusion: bool) -> None:
        super().__init__()
        form = Shared if config.attention == "shared" else Multiway
        self.attention_norm = form(lambda: nn.LayerNorm(config.width, LAYER_NORM_EPS))
        self.attention = Attention(config)
        self.experts = Multiway(lambda: Expert(config))
        self.fusion = Expert(config) if fusion else None

    def forward(self, x: Tensor, split: int, mask: Tensor | None, scale: Tensor | None) -> Tensor:
        """(B, S, D) → (B, S, D).

        Args:
            x: the sequence, vision first.
            split: length of the vision part.
            mask: see :class:`Attention`.
            scale: (2, B) factors of the two residual branches, 0 where a sample skips one.
        """
        branch = self.attention(self.attention_norm(x, split), split, mask)
        x = x + (branch if scale is None else branch * scale[0, :, None, None])
        if self.fusion is not None and 0 < split < x.shape[1]:
            branch = self.fusion(x)
        else:
            branch = self.experts(x, split)
        return x + (branch if scale is None else branch * scale[1, :, None, None])
