"""The Multiway block (paper, section 2.1): attention over both modalities, an expert for each.

A sequence is kept as two tensors, vision and language, so routing costs nothing: an expert
receives only its own modality, and a sequence of one modality uses no weights of the other. The
two tensors are joined in attention and in the vision-language expert only.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.cache import LayerCache
from model.network.config import BEiT3Config, Recomputing
from model.network.layer_norm import LayerNorm, SubLayerNorm
from model.network.recomputing import run

Parts = tuple[Tensor | None, Tensor | None]
"Vision (B, 1 + N, D) and language (B, T, D); None where a modality is absent."


def joined(parts: Parts) -> Tensor:
    """Return the sequence (B, S, D), vision first; a single modality is not copied."""
    present = [part for part in parts if part is not None]
    return torch.cat(present, dim=1) if len(present) > 1 else present[0]


def split_as(parts: Parts, x: Tensor) -> Parts:
    """Return views of a joined sequence (B, S, …), cut as ``parts`` are cut."""
    vision, language = parts
    if vision is None:
        return None, x
    if language is None:
        return x, None
    first, second = x.split([vision.shape[1], language.shape[1]], dim=1)
    return first, second


def last_token(parts: Parts) -> Parts:
    """Return the last token of each text, (B, 1, D), alone."""
    _, language = parts
    assert language is not None
    return None, language[:, -1:]


class Multiway(nn.Module):
    """One module per modality."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.vision = make()
        self.language = make()

    def forward(self, parts: Parts) -> Parts:
        """Apply each module to its own modality."""
        vision, language = parts
        return (
            None if vision is None else self.vision(vision),
            None if language is None else self.language(language),
        )

    def join(self, parts: Parts) -> Tensor:
        """Apply each module to its own modality; return the joined sequence (B, S, …)."""
        return joined(self(parts))

    def cut(self, x: Tensor, parts: Parts) -> Parts:
        """Cut a joined sequence (B, S, …) as ``parts`` are cut, then apply each module."""
        result: Parts = self(split_as(parts, x))
        return result


class Shared(nn.Module):
    """One module for both modalities, called like :class:`Multiway`."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.both = make()

    def forward(self, parts: Parts) -> Parts:
        """Apply the module to each modality."""
        vision, language = parts
        return (
            None if vision is None else self.both(vision),
            None if language is None else self.both(language),
        )

    def join(self, parts: Parts) -> Tensor:
        """Apply the module to the joined sequence in one matrix product → (B, S, …)."""
        result: Tensor = self.both(joined(parts))
        return result

    def cut(self, x: Tensor, parts: Parts) -> Parts:
        """Apply the module to a joined sequence (B, S, …), then cut it as ``parts`` are cut."""
        return split_as(parts, self.both(x))


class Attention(nn.Module):
    """Multi-head self-attention over the whole sequence, q, k and v in one product."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        width = config.width
        form = Shared if config.attention == "shared" else Multiway
        self.num_heads = config.num_heads
        self.qkv = form(lambda: nn.Linear(width, 3 * width))
        self.inner_norm = form(lambda: SubLayerNorm(width)) if config.subln else None
        self.out = form(lambda: nn.Linear(width, width))

    def forward(
        self,
        parts: Parts,
        mask: Tensor | None,
        cache: LayerCache | None = None,
        last: bool = False,
    ) -> Parts:
        """Apply self-attention to the sequence.

        Args:
            parts: vision (B, 1 + N, D) and language (B, T, D).
            mask: bool, broadcastable to (B, H, S, number of keys), True = may attend.
            cache: keys and values of earlier positions, which this call extends.
            last: return the attention of the last token of each text alone.
        """
        qkv = self.qkv.join(parts).unflatten(-1, (3, self.num_heads, -1))
        # unbind before transpose: the backward then makes one copy of the gradient, not two.
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        if last:
            q, parts = q[:, :, -1:], last_token(parts)
        if cache is None:
            mask = mask[..., -q.shape[2] :, :] if last and mask is not None else mask
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            x = cache.attend(q, k, v, mask)
        x = x.transpose(1, 2).flatten(2)
        if self.inner_norm is None:
            return self.out.cut(x, parts)
        result: Parts = self.out(self.inner_norm.cut(x, parts))
        return result


class Expert(nn.Module):
    """A feed-forward network and the LayerNorm before it."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.norm = LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.ffn_width)
        self.inner_norm = SubLayerNorm(config.ffn_width, gelu=True) if config.subln else None
        self.fc2 = nn.Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, S, D)."""
        x = self.fc1(self.norm(x))
        return self.fc2(F.gelu(x) if self.inner_norm is None else self.inner_norm(x))


class Block(nn.Module):
    """Attention, then experts, each with a residual connection and stochastic depth."""

    def __init__(self, config: BEiT3Config, fusion: bool) -> None:
        super().__init__()
        form = Shared if config.attention == "shared" else Multiway
        self.attention_norm = form(lambda: LayerNorm(config.width))
        self.attention = Attention(config)
        experts = Shared if config.experts == "shared" else Multiway
        self.experts = experts(lambda: Expert(config))
        self.fusion = Expert(config) if fusion else None

    def forward(
        self,
        parts: Parts,
        mask: Tensor | None,
        scale: Tensor | None,
        fused: bool,
        cache: LayerCache | None = None,
        last: bool = False,
        recomputing: Recomputing = "none",
    ) -> Parts:
        """Apply the block.

        Args:
            parts: vision (B, 1 + N, D) and language (B, T, D).
            mask: attention mask, see :class:`Attention`.
            scale: (2, B) factors of the two residual branches, 0 where a sample skips a branch.
            fused: whether the sequence is a pair; the vision-language expert then replaces the
                other experts in a block that has one.
            cache: see :class:`Attention`.
            last: return the last token of each text alone, as where no block follows.
            recomputing: what the backward computes again, see ``recomputing.py``.
        """
        # Within the block, so that a compiled block has it in its graphs.
        return run(self._apply_once, recomputing, parts, mask, scale, fused, cache, last)

    def _apply_once(
        self,
        parts: Parts,
        mask: Tensor | None,
        scale: Tensor | None,
        fused: bool,
        cache: LayerCache | None,
        last: bool,
    ) -> Parts:
        branch = self.attention(self.attention_norm(parts), mask, cache, last)
        parts = last_token(parts) if last else parts
        parts = _added(parts, branch, None if scale is None else scale[0])
        if self.fusion is not None and fused:
            branch = split_as(parts, self.fusion(joined(parts)))
        else:
            branch = self.experts(parts)
        return _added(parts, branch, None if scale is None else scale[1])


def _added(parts: Parts, branch: Parts, scale: Tensor | None) -> Parts:
    """Add a residual branch times ``scale`` (B,); the sum stays fp32 if the branch is bf16."""
    factor = None if scale is None else scale[:, None, None]

    def one(x: Tensor | None, y: Tensor | None) -> Tensor | None:
        if x is None or y is None:
            return None
        return x + y if factor is None else torch.addcmul(x, y, factor)

    return one(parts[0], branch[0]), one(parts[1], branch[1])
