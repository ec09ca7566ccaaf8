"""Keys and values of earlier positions, for texts that continue images token by token.

Each image has R texts, such as the beams of a search. The keys and values of its patches are
computed once and read by all of them. A token of a text is stored once too: where texts have a
common beginning, a table of ancestors says which stored tokens each text continues, and the
attention mask follows it. So a search that reorders its texts copies no keys or values.

Memory for texts of ``max_text_length`` tokens is allocated at the first call. In it the image comes
first, then the R tokens at text position 0, the R tokens at position 1, and so on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.attention_mask import attention_mask


class Cache:
    """Keys and values of all blocks for a batch of images; a generation has one."""

    def __init__(self, depth: int, max_text_length: int, num_texts: int = 1) -> None:
        """Prepare an empty cache.

        Args:
            depth: blocks of the network.
            max_text_length: most tokens of a text.
            num_texts: R, texts of each image.
        """
        self.max_text_length, self.num_texts = max_text_length, num_texts
        self.image_length = 0
        "Cached positions of an image: 1 + N, or 0 before images are given."
        self.text_length = 0
        "Cached tokens of each text."
        self.num_images: int | None = None
        "B, or None before the first call."
        self.layers = [LayerCache(self) for _ in range(depth)]
        self._ancestors: Tensor | None = None
        "(B, R, max_text_length) long: of the R tokens at a position, the one that a text has."

    @property
    def length(self) -> int:
        """Return the number of positions of an image and one of its texts."""
        return self.image_length + self.text_length

    def begin_call(
        self, num_rows: int, image_length: int, text_length: int, device: torch.device
    ) -> Tensor | None:
        """Count the positions of a call; return its attention mask.

        Args:
            num_rows: B, or B * R texts, the R texts of an image one after the other.
            image_length: new positions of images, in the first call.
            text_length: T, new tokens of each text.
            device: of the mask.

        Returns:
            bool, broadcastable to (rows, H, new positions, keys); in calls after the first to
            (B, H, texts * T, keys).
        """
        first, end = self.text_length, self.text_length + text_length
        self.text_length = end
        if self.num_images is None:
            self.num_images, self.image_length = num_rows, image_length
            shape = (num_rows, self.num_texts, self.max_text_length)
            self._ancestors = torch.zeros(shape, dtype=torch.long, device=device)
            return attention_mask(image_length, text_length, "seq2seq", device=device)
        assert self._ancestors is not None
        texts = torch.arange(self.num_texts, device=device)
        num_of_image = num_rows // self.num_images
        own = texts[:, None] if num_of_image > 1 else 0
        self._ancestors[:, :, first:end] = own
        read = self._ancestors[:, :num_of_image, :end, None] == texts
        position = torch.arange(end, device=device)
        causal = position <= position[first:, None]
        of_texts = read[:, :, None] & causal[:, :, None]  # (B, texts, T, end, R)
        return F.pad(of_texts.flatten(3).flatten(1, 2)[:, None], (self.image_length, 0), value=True)

    def drop_last(self, num_tokens: int) -> None:
        """Remove the last tokens of each text, such as a [MASK] that asked for the next token.

        Raises:
            ValueError: the cache holds fewer text tokens.
        """
        if num_tokens > self.text_length:
            raise ValueError(f"{num_tokens} tokens to drop, the cache holds {self.text_length}")
        self.text_length -= num_tokens

    def select(self, texts: Tensor) -> None:
        """Say which text each text of an image continues; beam search calls it after each step.

        A text whose number occurs several times is continued in several ways, one whose number
        does not occur is dropped.

        Args:
            texts: (B, R) long, numbers below R.

        Raises:
            ValueError: type, shape or a number is another one, or the cache is empty.
        """
        ancestors = self._filled()
        shape = (len(ancestors), self.num_texts)
        _check_numbers("texts", texts, shape, self.num_texts)
        index = texts.to(ancestors.device).long()[:, :, None].expand_as(ancestors)
        self._ancestors = ancestors.gather(1, index)

    def keep(self, images: Tensor) -> None:
        """Keep the given images, in the given order. Only those that change their row are copied.

        Args:
            images: (B',) long, different numbers below B; the next call has B' or B' * R rows.

        Raises:
            ValueError: type, shape or a number is another one, or the cache is empty.
        """
        ancestors = self._filled()
        _check_numbers("images", images, (len(images),), len(ancestors))
        if len(set(images.tolist())) < len(images):
            raise ValueError(f"images {images.tolist()} occur twice; a cache holds an image once")
        images = images.to(ancestors.device).long()
        self._ancestors, self.num_images = ancestors[images], len(images)
        rows = torch.arange(len(images), device=images.device)
        moved = rows[images != rows]
        for layer in self.layers:
            layer.keep(images[moved], moved, len(images))

    def _filled(self) -> Tensor:
        if self._ancestors is None:
            raise ValueError("the cache is empty; select after the first call")
        return self._ancestors


class LayerCache:
    """Keys and values of one block, (B, H, 1 + N + max_text_length * R, D / H)."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Store the keys and values of a call; return its attention, shaped as ``q``.

        Args:
            q: (rows, H, the last of the new positions or all of them, D / H).
            k: (rows, H, new positions, D / H).
            v: as ``k``.
            mask: of :meth:`Cache.begin_call`.
        """
        num_rows, num_heads, num_asked, width = q.shape
        num_new = k.shape[2]
        if self.keys is None or self.values is None:
            self.keys, self.values = self._begin(k), self._begin(v)
            mask = None if mask is None else mask[..., -num_asked:, :]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        num_images, end = len(self.keys), self.cache.text_length
        length = self.cache.image_length + end * self.cache.num_texts
        self._texts(self.keys)[:, :, end - num_new : end].copy_(self._by_position(k))
        self._texts(self.values)[:, :, end - num_new : end].copy_(self._by_position(v))
        if mask is not None and num_asked < num_new:
            mask = mask.unflatten(2, (-1, num_new))[:, :, :, -num_asked:].flatten(2, 3)
        of_image = (num_images, -1, num_heads, width)
        x = F.scaled_dot_product_attention(
            q.transpose(1, 2).reshape(of_image).transpose(1, 2),
            self.keys[:, :, :length],
            self.values[:, :, :length],
            attn_mask=mask,
        )
        return x.transpose(1, 2).reshape(num_rows, num_asked, num_heads, width).transpose(1, 2)

    def keep(self, images: Tensor, rows: Tensor, number: int) -> None:
        """Copy images to other rows, then keep the first rows."""
        if self.keys is not None and self.values is not None:
            self.keys[rows] = self.keys[images]
            self.values[rows] = self.values[images]
            self.keys, self.values = self.keys[:number], self.values[:number]

    def _begin(self, new: Tensor) -> Tensor:
        cache = self.cache
        num_rows, num_heads, _, width = new.shape
        length = cache.image_length + cache.max_text_length * cache.num_texts
        buffer = new.new_zeros(num_rows, num_heads, length, width)
        buffer[:, :, : cache.image_length] = new[:, :, : cache.image_length]
        texts = new[:, :, cache.image_length :, None]
        self._texts(buffer)[:, :, : cache.text_length] = texts
        return buffer

    def _texts(self, buffer: Tensor) -> Tensor:
        """Return a view of the texts, (B, H, max_text_length, R, D / H)."""
        return buffer[:, :, self.cache.image_length :].unflatten(2, (-1, self.cache.num_texts))

    def _by_position(self, new: Tensor) -> Tensor:
        """(B or B * R, H, T, D / H) → (B, H, T, 1 or R, D / H)."""
        assert self.keys is not None
        return new.unflatten(0, (len(self.keys), -1)).permute(0, 2, 3, 1, 4)


def _check_numbers(name: str, numbers: Tensor, shape: tuple[int, ...], limit: int) -> None:
    if numbers.dtype not in (torch.int64, torch.int32):  # as an index, bool and uint8 are masks
        raise ValueError(f"{name} have type {numbers.dtype}; give numbers as int64")
    if numbers.shape != shape or bool(((numbers < 0) | (numbers >= limit)).any()):
        raise ValueError(
            f"{name} are {numbers.tolist()}; give {tuple(shape)} numbers from 0 to {limit - 1}"
        )
