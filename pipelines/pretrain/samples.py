"""Samples: rows of the token tables → the tensors of a micro-batch.

The stored JPEG is cut at the box of one of its views, or at a new one (``crops.py``); masks and
stochastic depth are drawn. Everything is a pure function of (seed, step, slot).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from model import BEiT3Config
from model.training import randomness
from model.training.batch import STREAMS, MicroBatch, Stream
from model.training.masking import mask_patches, mask_tokens, num_masked_patches
from model.training.stochastic_depth import residual_scale
from pipelines.pretrain.crop_processes import crop_here
from pipelines.pretrain.crops import (
    CropMaker,
    NewViewCutter,
    NewViews,
    StoredViewCutter,
)
from pipelines.readers.columns import matrix
from tokenizer.text import BOS, EOS, FIRST_PIECE, PAD, TextTokenizer

_LENGTH_MULTIPLE: Final = 8
_NUM_LENGTHS: Final = 4
"Number of lengths to which captions are padded: compiled blocks have a graph for each."
_VIEW, _CAPTION, _JITTER, _MASK, _DEPTH = range(5)
"Purposes of random numbers; each purpose has its own seed, so that draws are independent."

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FeedParams:
    """Parameters of samples, as described in ``pipelines.pretrain.params.Params``."""

    text_mask_ratio: float
    pair_text_mask_ratio: float
    image_mask_ratio: float
    pair_masking: str
    max_caption_length: int
    color_jitter: float
    drop_path: float
    isolate_documents: bool


class SampleBuilder:
    """Builds micro-batches of one stream from rows and slots."""

    def __init__(
        self,
        stream: Stream,
        network: BEiT3Config,
        text: TextTokenizer,
        params: FeedParams,
        seed: int,
        new_views: NewViews | None = None,
        *,
        jitters_later: bool = False,
    ) -> None:
        """Prepare the builder of a stream.

        Args:
            stream: of the rows.
            network: configuration of the network.
            text: the text tokenizer.
            params: how samples are built.
            seed: of the samples.
            new_views: how a new view is drawn at each visit; None takes the stored views.
            jitters_later: let ``MicroBatch.to`` change the colors of stored views.
        """
        self.stream, self.network, self.text, self.params = stream, network, text, params
        self.seed = int(randomness.bits(seed, STREAMS.index(stream)))
        common = network, params.color_jitter, self._seed(_VIEW), self._seed(_JITTER)
        self.cutter = (
            StoredViewCutter(*common, jitters_later=jitters_later)
            if new_views is None
            else NewViewCutter(*common, new_views)
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the token table that :meth:`build` reads."""
        images = () if self.stream == "text" else self.cutter.columns
        texts = {"image": (), "text": ("ids",), "pair": ("captions",)}[self.stream]
        return (*images, *texts)

    def build(
        self,
        rows: pa.Table,
        step: int,
        slots: Ints,
        captions: Ints | None = None,
        crop: CropMaker = crop_here,
    ) -> MicroBatch:
        """Return the micro-batch of a step's ``slots`` (B,), filled by ``rows`` (B rows).

        ``captions`` (B,) are the indexes of the captions to take from each pair; without them a
        caption is drawn for each slot. ``crop`` makes the crops.

        Raises:
            ValueError: the number of codes of a view is not the network's number of patches, or
                a stored image is damaged; the message names its sample.
        """
        batch = MicroBatch(self.stream)
        text_masked = image_masked = np.ones(len(slots), bool)
        if self.stream == "pair" and self.params.pair_masking == "separate":
            text_masked = slots % 2 == 0
            image_masked = ~text_masked
        if self.stream != "text":
            self._add_images(batch, rows, step, slots, image_masked, crop)
        if self.stream != "image":
            if self.stream == "pair" and captions is None:
                captions = self.drawn_captions(rows, step, slots)
            self._add_text(batch, rows, step, slots, text_masked, captions)
        scale = residual_scale(
            self.network.depth, self.params.drop_path, self._seed(_DEPTH), step, slots
        )
        batch.residual_scale = None if scale is None else torch.from_numpy(scale)
        return batch

    def drawn_captions(self, rows: pa.Table, step: int, slots: Ints) -> Ints:
        """Return the index of the caption drawn for each slot (B,), which ``rows`` fill."""
        numbers = pc.list_value_length(rows["captions"]).to_numpy()
        return randomness.integers(numbers, self._seed(_CAPTION), step, slots)

    def caption_lengths(self, rows: pa.Table, captions: Ints) -> Ints:
        """Return the number of tokens (B,) of one caption of each of B pairs, before the cut."""
        numbers = pc.list_value_length(rows["captions"]).to_numpy()
        lengths = pc.list_value_length(pc.list_flatten(rows["captions"])).to_numpy()
        return lengths[np.cumsum(numbers) - numbers + captions]

    def _seed(self, purpose: int) -> int:
        return int(randomness.bits(self.seed, purpose))

    def _add_images(
        self,
        batch: MicroBatch,
        rows: pa.Table,
        step: int,
        slots: Ints,
        masked: NDArray[np.bool_],
        crop: CropMaker,
    ) -> None:
        network, crops = self.network, self.cutter(rows, step, slots, crop)
        count = num_masked_patches(network.num_patches, self.params.image_mask_ratio)
        mask = mask_patches(network.grid, count, self._seed(_MASK), step, slots)
        batch.pixels = torch.from_numpy(crops.images)
        batch.pixel_mean = torch.tensor(network.pixel_mean)
        batch.pixel_std = torch.tensor(network.pixel_std)
        if crops.codes is not None and network.image_target == "codes":
            batch.codes = torch.from_numpy(crops.codes)
        if crops.jitter is not None:
            operations, factors = crops.jitter
            batch.jitter_operations = torch.from_numpy(operations)
            batch.jitter_factors = torch.from_numpy(factors)
        if crops.for_tokenizer is not None:
            batch.tokenizer_pixels = torch.from_numpy(crops.for_tokenizer)
        batch.image_mask = torch.from_numpy(mask & masked[:, None])

    def _add_text(
        self,
        batch: MicroBatch,
        rows: pa.Table,
        step: int,
        slots: Ints,
        masked: NDArray[np.bool_],
        captions: Ints | None,
    ) -> None:
        if captions is None:
            ids = matrix(rows["ids"]).astype(np.int64)
            ratio = self.params.text_mask_ratio
        else:
            ids = self._captions(rows, captions)
            ratio = self.params.pair_text_mask_ratio
        maskable = (ids >= FIRST_PIECE) & masked[:, None]
        corrupted, chosen = mask_tokens(
            ids,
            maskable,
            ratio,
            (FIRST_PIECE, self.text.last_piece),
            self.text.mask,
            self._seed(_MASK),
            step,
            slots,
        )
        batch.text_ids = torch.from_numpy(corrupted)
        batch.text_targets = torch.from_numpy(ids)
        batch.text_mask = torch.from_numpy(chosen)
        if self.stream == "text" and self.params.isolate_documents:
            batch.text_documents = torch.from_numpy(np.cumsum(ids == BOS, axis=1))
        padding = ids == PAD
        # A micro-batch of captions of one length has a mask too, else blocks compile a graph more.
        has_mask = self.stream == "pair" or padding.any()
        batch.text_padding = torch.from_numpy(padding) if has_mask else None

    def _captions(self, rows: pa.Table, chosen: Ints) -> Ints:
        """Return the chosen caption of each pair, (B, T), padded to the next of a few lengths."""
        captions = [
            [BOS, *choices[which][: self.params.max_caption_length - 2], EOS]
            for which, choices in zip(chosen, rows["captions"].to_pylist(), strict=True)
        ]
        unit = -(-self.params.max_caption_length // (_NUM_LENGTHS * _LENGTH_MULTIPLE))
        unit *= _LENGTH_MULTIPLE
        length = -(-max(map(len, captions)) // unit) * unit
        ids = np.full((len(captions), length), PAD, np.int64)
        for i, caption in enumerate(captions):
            ids[i, : len(caption)] = caption
        return ids
