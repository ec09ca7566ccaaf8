"""The feed: committed token shards → the micro-batches of a step.

1. ``Order`` says which row fills each slot of the step (model/training/order.py).
2. ``RowReader`` reads the rows, one row group at a time.
3. The stored JPEG is cut at the box of one of its views, or at a new one (``crops.py``).
4. Masks are drawn from (seed, step, slot).

Everything is a pure function of (seed, step, slot): the feed has no state except caches.
"""

from collections.abc import Iterator, Mapping
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
from model.training.order import Order
from model.training.stochastic_depth import residual_scale
from orchestration import Dataset
from pipelines.pretrain.crops import NewViewCutter, NewViews, StoredViewCutter, matrix
from pipelines.readers.rows import RowReader
from tokenizer.text import BOS, EOS, FIRST_PIECE, PAD, TextTokenizer
from tokenizer.vqkd import to_input

_LENGTH_MULTIPLE: Final = 8
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


@dataclass(frozen=True)
class PairOrder:
    """What the order of the pair stream depends on, for each row; None stands for 1 everywhere."""

    num_captions: NDArray[np.integer] | None = None
    "Number of captions; each one is a sample."
    weights: NDArray[np.floating] | None = None
    "How many times an epoch shows the pairs of the row."


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
    ) -> None:
        """Prepare the builder of a stream.

        Args:
            stream: of the rows.
            network: configuration of the network.
            text: the text tokenizer.
            params: how samples are built.
            seed: of the samples.
            new_views: how a new view is drawn at each visit; None takes the stored views.
        """
        self.stream, self.network, self.text, self.params = stream, network, text, params
        self.seed = int(randomness.bits(seed, STREAMS.index(stream)))
        common = network, params.color_jitter, self._seed(_VIEW), self._seed(_JITTER)
        self.cutter = (
            StoredViewCutter(*common) if new_views is None else NewViewCutter(*common, new_views)
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the token table that :meth:`build` reads."""
        images = () if self.stream == "text" else self.cutter.columns
        texts = {"image": (), "text": ("ids",), "pair": ("captions",)}[self.stream]
        return (*images, *texts)

    def build(
        self, rows: pa.Table, step: int, slots: Ints, captions: Ints | None = None
    ) -> MicroBatch:
        """Return the micro-batch of a step's ``slots`` (B,), filled by ``rows`` (B rows).

        ``captions`` (B,) are the indexes of the captions to take from each pair; without them a
        caption is drawn for each slot.

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
            self._add_images(batch, rows, step, slots, image_masked)
        if self.stream != "image":
            if self.stream == "pair" and captions is None:
                numbers = pc.list_value_length(rows["captions"]).to_numpy()
                captions = randomness.integers(numbers, self._seed(_CAPTION), step, slots)
            self._add_text(batch, rows, step, slots, text_masked, captions)
        scale = residual_scale(
            self.network.depth, self.params.drop_path, self._seed(_DEPTH), step, slots
        )
        batch.residual_scale = None if scale is None else torch.from_numpy(scale)
        return batch

    def _seed(self, purpose: int) -> int:
        return int(randomness.bits(self.seed, purpose))

    def _add_images(
        self, batch: MicroBatch, rows: pa.Table, step: int, slots: Ints, masked: NDArray[np.bool_]
    ) -> None:
        network, crops = self.network, self.cutter(rows, step, slots)
        count = num_masked_patches(network.num_patches, self.params.image_mask_ratio)
        mask = mask_patches(network.grid, count, self._seed(_MASK), step, slots)
        batch.images = normalize(crops.images, network)
        if crops.codes is not None:
            batch.codes = torch.from_numpy(crops.codes)
        if crops.for_tokenizer is not None:
            batch.tokenizer_images = to_input(crops.for_tokenizer)
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
        batch.text_padding = torch.from_numpy(padding) if padding.any() else None

    def _captions(self, rows: pa.Table, chosen: Ints) -> Ints:
        """Return the chosen caption of each pair, (B, T), padded to the longest rounded up."""
        captions = [
            [BOS, *choices[which][: self.params.max_caption_length - 2], EOS]
            for which, choices in zip(chosen, rows["captions"].to_pylist(), strict=True)
        ]
        length = max(map(len, captions))
        length = -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
        ids = np.full((len(captions), length), PAD, np.int64)
        for i, caption in enumerate(captions):
            ids[i, : len(caption)] = caption
        return ids


class Feed:
    """The micro-batches of each step for one worker."""

    def __init__(
        self,
        datasets: Mapping[Stream, Dataset],
        builders: Mapping[Stream, SampleBuilder],
        *,
        samples_per_step: Mapping[Stream, int],
        micro_batch: int,
        num_substreams: int,
        shuffle_window: int,
        seed: int,
        rank: int,
        num_workers: int,
        pairs: PairOrder | None = None,
    ) -> None:
        """Open the shards.

        Args:
            datasets: token dataset of each stream.
            builders: sample builder of each stream.
            samples_per_step: number of samples of each stream in a step, over all workers.
            micro_batch: largest number of samples in a micro-batch.
            num_substreams: C, see ``model.training.order``.
            shuffle_window: number of row groups of a substream that are shuffled together.
            seed: of the recipe.
            rank: number of this worker, from 0.
            num_workers: number of workers.
            pairs: captions and weight of each row of the pair stream; without them each image is
                one sample, whose caption is drawn at each visit.

        Raises:
            ValueError: batch, substreams, workers or row groups do not fit together.
        """
        self.builders = builders
        self.micro_batch = micro_batch
        self.by_caption = pairs is not None and pairs.num_captions is not None
        self.orders: dict[Stream, Order] = {}
        self.slots: dict[Stream, Ints] = {}
        self.readers: dict[Stream, RowReader] = {}
        for stream, dataset in datasets.items():
            if not samples_per_step[stream]:
                continue
            groups = [group.num_rows for group in dataset.row_groups() if group.num_rows]
            mine = pairs if stream == "pair" and pairs is not None else PairOrder()
            try:
                self.orders[stream] = Order(
                    groups,
                    batch=samples_per_step[stream],
                    num_substreams=num_substreams,
                    shuffle_window=shuffle_window,
                    seed=int(randomness.bits(seed, 100 + STREAMS.index(stream))),
                    samples_per_row=mine.num_captions,
                    row_weights=mine.weights,
                )
                self.slots[stream] = self.orders[stream].slots(rank, num_workers)
            except ValueError as error:
                raise ValueError(f"{stream} stream: {error}") from None
            keep = 2 * shuffle_window * num_substreams // num_workers
            self.readers[stream] = RowReader(dataset, builders[stream].columns, keep=keep)

    def step(self, step: int) -> list[MicroBatch]:
        """Return this worker's micro-batches of a step."""
        return [micro for stream in self.orders for micro in self._stream_step(stream, step)]

    def _stream_step(self, stream: Stream, step: int) -> Iterator[MicroBatch]:
        slots = self.slots[stream]
        numbers, captions = self.orders[stream].samples(step, slots)
        table = self.readers[stream].take(numbers)
        for i in range(0, len(slots), self.micro_batch):
            rows, some = table.slice(i, self.micro_batch), slice(i, i + self.micro_batch)
            chosen = captions[some] if stream == "pair" and self.by_caption else None
            yield self.builders[stream].build(rows, step, slots[some], chosen)


def normalize(pixels: NDArray[np.uint8], network: BEiT3Config) -> torch.Tensor:
    """(B, H, W, 3) RGB → (B, 3, H, W) float32, normalized with the network's mean and std."""
    mean = torch.tensor(network.pixel_mean).view(1, 3, 1, 1)
    std = torch.tensor(network.pixel_std).view(1, 3, 1, 1)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return ((images - mean) / std).contiguous()
