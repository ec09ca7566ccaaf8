"""Texts of examples → token ids: ``<s> a </s>``, and of two texts ``<s> a </s></s> b </s>``."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tokenizer.text import BOS, EOS, PAD, TextTokenizer

_NUM_LENGTHS: Final = 4
"Number of lengths to which texts are padded: compiled blocks have a graph for each."
_LENGTH_MULTIPLE: Final = 8


class TextEncoder:
    """Encodes one or two texts of each example in the form of XLM-R."""

    def __init__(self, tokenizer: TextTokenizer, max_length: int) -> None:
        """Prepare.

        Args:
            tokenizer: of the network.
            max_length: number of tokens to which longer texts are truncated, with the special ones.
        """
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Return ids (B, T) long and padding (B, T) bool of the one or two texts of B examples."""
        return self.padded([self.ids(some) for some in texts])

    def padded(self, encoded: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return ids (B, T) long and padding (B, T) bool of B texts that are encoded."""
        unit = -(-self.max_length // (_NUM_LENGTHS * _LENGTH_MULTIPLE)) * _LENGTH_MULTIPLE
        longest = max(map(len, encoded), default=0)
        length = min(-(-longest // unit) * unit, self.max_length)
        ids = np.full((len(encoded), length), PAD, np.int64)
        for row, some in zip(ids, encoded, strict=True):
            row[: len(some)] = some
        return torch.from_numpy(ids), torch.from_numpy(ids == PAD)

    def ids(self, texts: Sequence[str]) -> list[int]:
        """Return the ids of one or two texts, truncated as transformers does (longest first).

        Raises:
            ValueError: the largest length has no room for the texts.
        """
        parts = [self.tokenizer.encode(text) for text in texts]
        room = self.max_length - 2 * len(parts)
        if room < len(parts):
            raise ValueError(
                f"max_text_length = {self.max_length} has no room for {len(parts)} texts and "
                f"their special tokens; set network.max_text_length to {3 * len(parts)} or more"
            )
        if sum(map(len, parts)) > room:
            shorter = min(parts, key=len)  # of equally long ones the first
            kept = min(len(shorter), room // 2) if len(parts) > 1 else room
            parts = [part[: kept if part is shorter else room - kept] for part in parts]
        ids = [BOS]
        for number, part in enumerate(parts):
            ids += [EOS] * (number > 0) + part + [EOS]
        return ids
