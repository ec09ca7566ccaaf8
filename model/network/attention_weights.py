"""The attention weights of the last block, for a person to look at.

The forward computes them within one kernel, which returns no weights. Here they are computed again
from the hidden states before the last block.
"""

import math

import torch
from torch import Tensor

from model.network.attention_mask import attention_mask
from model.network.beit3 import BEiT3
from model.network.multiway import Block, Parts, split_as


@torch.no_grad()
def last_attention(
    network: BEiT3,
    images: Tensor | None = None,
    text_ids: Tensor | None = None,
    text_padding: Tensor | None = None,
) -> Tensor:
    """Return how much each position of the last block attends to each other, (B, H, S, S) float.

    The weights of a position, along the last axis, sum to 1; a padded position has weight 0.

    Args:
        network: in evaluation mode.
        images: (B, 3, image_size, image_size) float, normalized.
        text_ids: (B, T) long.
        text_padding: (B, T) bool, True = padded.
    """
    vision = None if images is None else network.vision(images, None)
    language = None if text_ids is None else network.language(text_ids, 0)
    parts: Parts = (vision, language)
    if len(network.blocks) > 1:
        encoded = network(images, text_ids, text_padding, keep_layers=True)
        parts = split_as(parts, encoded.layers[-2])
    block = network.blocks[-1]
    assert isinstance(block, Block)
    attention = block.attention
    qkv = attention.qkv.join(block.attention_norm(parts)).unflatten(
        -1, (3, attention.num_heads, -1)
    )
    q, k, _ = (x.transpose(1, 2) for x in qkv.unbind(2))
    scores: Tensor = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    mask = attention_mask(
        0 if vision is None else vision.shape[1],
        0 if language is None else language.shape[1],
        "bidirectional",
        text_padding=text_padding,
        device=scores.device,
    )
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.float().softmax(-1)
