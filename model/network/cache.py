"""Key-value cache for sequence-to-sequence generation.

Without it, captioning would encode the image again for each generated token.
"""

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one layer, each (B, H, length, D / H)."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values, each (B, H, new, D / H); return all of them."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


class Cache:
    """Keys and values of all blocks for one batch; each call of a generation gets the same one."""

    def __init__(self, depth: int) -> None:
        self.layers = [LayerCache() for _ in range(depth)]
        self.image_length = 0
        "Cached positions of the image: 1 + N, or 0 before an image is given."
        self.text_length = 0
        "Cached text tokens."

    @property
    def length(self) -> int:
        """Return the number of cached positions."""
        return self.image_length + self.text_length

    @property
    def batch(self) -> int | None:
        """Return the number of cached rows, B, or None before the first call."""
        keys = self.layers[0].keys if self.layers else None
        return None if keys is None else keys.shape[0]

    def take(self, image_length: int, text_length: int) -> tuple[int, int]:
        """Add a call's positions to the counts; return (image, text) positions before the call."""
        before = self.image_length, self.text_length
        self.image_length += image_length
        self.text_length += text_length
        return before

    def drop_last(self, num_tokens: int) -> None:
        """Remove the last tokens, such as a [MASK] appended to predict the next token.

        Raises:
            ValueError: the cache holds fewer text tokens.
        """
        if num_tokens > self.text_length:
            raise ValueError(f"{num_tokens} tokens to drop, the cache holds {self.text_length}")
        self.text_length -= num_tokens
        for layer in self.layers:
            if layer.keys is not None and layer.values is not None:
                layer.keys = layer.keys[:, :, : self.length]
                layer.values = layer.values[:, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in the given order.

        Beam search calls it after each step: a row that occurs several times continues one
        beginning in several ways, a row that does not occur is dropped.

        Args:
            rows: (B',) long, row numbers below B; the next call has B' rows.

        Raises:
            ValueError: a row is not in the cache, the type is another one, or the cache is empty.
        """
        if self.batch is None:
            raise ValueError("the cache is empty; select rows after the first call")
        if rows.dtype not in (torch.int64, torch.int32):  # as an index, bool and uint8 are masks
            raise ValueError(f"rows have type {rows.dtype}; give row numbers as int64")
        if rows.ndim != 1 or bool(((rows < 0) | (rows >= self.batch)).any()):
            raise ValueError(
                f"rows {rows.tolist()} are not row numbers of the cache, 0 to {self.batch - 1}"
            )
        for layer in self.layers:
            if layer.keys is not None and layer.values is not None:
                layer.keys = layer.keys[rows]
                layer.values = layer.values[rows]
