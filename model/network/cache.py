"""Keys and values of what a sequence-to-sequence forward has already seen.

Token by token, captioning would otherwise encode the image again for each word.
"""

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one layer, each (B, H, length, D / H)."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append what is new; return all."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


class Cache:
    """What a network has seen of a batch: pass the same one to each call of a generation."""

    def __init__(self, depth: int) -> None:
        self.layers = [LayerCache() for _ in range(depth)]
        self.image_length = 0
        "1 + N once an image was seen: the sequence is then a pair."
        self.text_length = 0
        "Tokens seen."

    @property
    def length(self) -> int:
        """Positions seen."""
        return self.image_length + self.text_length

    def take(self, image_length: int, text_length: int) -> tuple[int, int]:
        """Count what a call adds; return the lengths before it."""
        before = self.image_length, self.text_length
        self.image_length += image_length
        self.text_length += text_length
        return before

    def drop_last(self, num_tokens: int) -> None:
        """Forget the last tokens: a [MASK] that was appended to predict the next word, say.

        Raises:
            ValueError: there are not so many.
        """
        if num_tokens > self.text_length:
            raise ValueError(f"{num_tokens} tokens to drop, the cache holds {self.text_length}")
        self.text_length -= num_tokens
        for layer in self.layers:
            if layer.keys is not None and layer.values is not None:
                layer.keys = layer.keys[:, :, : self.length]
                layer.values = layer.values[:, :, : self.length]
