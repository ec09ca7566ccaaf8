"""Rows of the token tables → micro-batches of an evaluation.

Masks and views are drawn once from the seed, without color jitter and stochastic depth. Of several
captions the first is taken where pairs are compared with each other, else one is drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import BEiT3Config
from model.training import randomness
from model.training.batch import STREAMS, MicroBatch, Stream
from orchestration import Dataset
from pipelines.pretrain.evaluation.words import (
    mask_words,
    pieces_that_start_words,
    word_numbers,
)
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.readers.rows import RowReader
from tokenizer.text import TextTokenizer

_STEP: Final = 1 << 40
"Step of the random numbers, beyond any training step."
_PURPOSE: Final = 30
_MORE_COLUMNS: Final[Mapping[Stream, tuple[str, ...]]] = {
    "image": ("sample_id", "label", "source"),
    "text": ("source",),
    "pair": ("sample_id", "source"),
}
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MaskedPairs:
    """Pairs whose captions and images are both masked."""

    batch: MicroBatch
    "``text_ids`` has the mask token at each masked position, and no other change."
    words: Tensor
    "(B, T) long, number of each token's word within its caption; -1 of special tokens."


class EvaluationInputs:
    """Reads rows, and builds the micro-batches of them."""

    def __init__(
        self,
        network: BEiT3Config,
        feed: FeedParams,
        seed: int,
        text: TextTokenizer,
        datasets: Mapping[Stream, Dataset],
        device: torch.device,
    ) -> None:
        """Open the tables.

        Args:
            network: configuration of the network.
            feed: how the training's samples are built.
            seed: of the recipe.
            text: the text tokenizer.
            datasets: token dataset of each stream.
            device: where the network is.
        """
        fixed = replace(feed, color_jitter=0.0, drop_path=0.0)
        # Both modalities of each pair are masked, of which an evaluation takes one at a time.
        both = replace(fixed, pair_masking="joint")
        seed = int(randomness.bits(seed, _PURPOSE))
        self.text, self.mask_id, self.device, self._seed = text, text.mask, device, seed
        self._starts, self._ratio = pieces_that_start_words(text), feed.pair_text_mask_ratio
        self._builders = {
            stream: SampleBuilder(stream, network, text, fixed, seed) for stream in STREAMS
        }
        self._pairs = SampleBuilder("pair", network, text, both, seed)
        self._readers = {
            (stream, table): RowReader(
                datasets[stream].table(table),
                list(dict.fromkeys((*self._builders[stream].columns, *_MORE_COLUMNS[stream]))),
            )
            for stream in STREAMS
            for table in ("train", "held_out")
        }

    def rows(self, stream: Stream, table: str, numbers: Ints) -> pa.Table:
        """Return rows (B) of a table by their numbers."""
        return self._readers[stream, table].take(numbers)

    def batch(self, stream: Stream, rows: pa.Table, numbers: Ints) -> MicroBatch:
        """Return the micro-batch of rows (B), masked as in training."""
        return self._builders[stream].build(rows, _STEP, numbers).to(self.device)

    def crops(
        self, stream: Stream, rows: pa.Table, numbers: Ints
    ) -> tuple[NDArray[np.uint8], Ints | None]:
        """Return the crops (B, H, H, 3) of rows that :meth:`batch` and :meth:`pairs` normalize.

        Their codes (B, N) come with them, if the network predicts codes.
        """
        batch = self._builders[stream].build(rows, _STEP, numbers)
        assert batch.pixels is not None
        codes = None if batch.codes is None else batch.codes.numpy()
        return batch.pixels.numpy(), codes

    def pairs(self, rows: pa.Table, numbers: Ints) -> MaskedPairs:
        """Return pairs (B) with their first captions; words are masked whole, patches as usual."""
        first = np.zeros(len(numbers), np.int64)
        batch = self._pairs.build(rows, _STEP, numbers, first)
        assert batch.text_targets is not None
        words = word_numbers(batch.text_targets.numpy(), self._starts)
        batch.text_mask = torch.from_numpy(mask_words(words, self._ratio, self._seed, numbers))
        batch.text_ids = torch.where(batch.text_mask, self.mask_id, batch.text_targets)
        return MaskedPairs(batch.to(self.device), torch.from_numpy(words).to(self.device))
