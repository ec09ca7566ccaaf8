"""The attention mask: which positions of a sequence attend to which (paper, Figure 2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Attending = Literal["bidirectional", "seq2seq"]
"""``bidirectional``: every position attends to every other. ``seq2seq``: a patch attends to
patches, a text token to patches and to the tokens up to itself."""


def attention_mask(
    image_length: int,
    text_length: int,
    attention: Attending,
    *,
    text_padding: Tensor | None = None,
    text_documents: Tensor | None = None,
    device: torch.device,
) -> Tensor | None:
    """Return the attention mask, True = may attend; None if every query attends to every key.

    Args:
        image_length: 1 + N, or 0 without images.
        text_length: T.
        attention: which positions attend to which.
        text_padding: (B, T) bool, True = padded: no query attends to it.
        text_documents: (B, T) long, the document of each token of texts without images; attention
            does not cross documents.
        device: device of the mask.

    Returns:
        bool, broadcastable to (B, H, S, S).
    """
    mask: Tensor | None = None
    if text_padding is not None:
        mask = F.pad(~text_padding, (image_length, 0), value=True)[:, None, None, :]
    if attention == "seq2seq":
        key = torch.arange(image_length + text_length, device=device)
        query = key[:, None]
        allowed = (key < image_length) | ((key <= query) & (query >= image_length))
        mask = allowed if mask is None else mask & allowed
    if text_documents is not None:
        same = (text_documents[:, :, None] == text_documents[:, None, :])[:, None]
        mask = same if mask is None else mask & same
    return mask
