"""The feed: committed token shards → the micro-batches of a step, on all cores of a worker.

1. ``Order`` says which row fills each slot of the step (model/training/order.py).
2. ``HeldRows`` reads the row groups of the windows that are read now and soon, in the background.
3. ``SampleBuilder`` makes each micro-batch of its rows (samples.py), several at the same time; with
   more than one core, processes decode and cut the images (crop_processes.py).

Everything is a pure function of (seed, step, slot): the feed has no state except caches.

If pairs fill several micro-batches, those with the shortest captions come first, so that captions
of like lengths are padded to one length. What a sample is does not depend on its micro-batch.

If the workers do not divide the substreams, some fill fewer slots than others. All of them still
get equally many micro-batches of each stream, since workers that hold shards of the network
exchange them in each one: a micro-batch that is missing is one without anything to predict.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from model.training import randomness
from model.training.batch import STREAMS, MicroBatch, Stream
from model.training.order import Order
from orchestration import Dataset
from pipelines.pretrain.crop_processes import (
    CropProcesses,
    crop_here,
    num_callers,
    num_processes,
)
from pipelines.pretrain.crops import CropMaker
from pipelines.pretrain.feed_use import FeedUse
from pipelines.pretrain.samples import SampleBuilder
from pipelines.readers.held_rows import HeldRows

Ints = NDArray[np.int64]

_STEPS_AHEAD: Final = 8
"Steps by which row groups are read before they are needed."
_STEPS_BEHIND: Final = 2
STEPS_HELD: Final = _STEPS_BEHIND + 2 * _STEPS_AHEAD
"Number of steps whose row groups are held."
_READ_THREADS: Final = 4


@dataclass(frozen=True)
class PairOrder:
    """What the order of the pair stream depends on, for each row; None stands for 1 everywhere."""

    num_captions: NDArray[np.integer] | None = None
    "Number of captions; each one is a sample."
    weights: NDArray[np.floating] | None = None
    "How many times an epoch shows the pairs of the row."


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
        num_threads: int = 1,
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
            num_threads: cores of this worker on which images are decoded and micro-batches built.
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
        self._most_slots: dict[Stream, int] = {}
        "Largest number of slots that a worker fills; the first one always does."
        self.readers: dict[Stream, HeldRows] = {}
        self._held: dict[Stream, int] = {}
        "For which block of steps row groups are held."
        self._lock = threading.Lock()
        self._groups: dict[Stream, Ints] = {}
        "Indices of the row groups that have rows."
        self.reading = ThreadPoolExecutor(_READ_THREADS, "feed-read")
        number = num_processes(num_threads)
        self.crop: CropMaker = CropProcesses(number) if number else crop_here
        "Makes the crops; processes are started with the first ones."
        # These threads use all cores; OpenCV's own would only compete with them.
        threads = num_callers(num_threads)
        self._building = ThreadPoolExecutor(
            threads, "feed-build", initializer=cv2.setNumThreads, initargs=(0,)
        )
        self.use = FeedUse(threads)
        for stream, dataset in datasets.items():
            if not samples_per_step[stream]:
                continue
            sizes = np.array([group.num_rows for group in dataset.row_groups()], np.int64)
            self._groups[stream] = np.flatnonzero(sizes)
            mine = pairs if stream == "pair" and pairs is not None else PairOrder()
            try:
                self.orders[stream] = Order(
                    sizes[sizes > 0].tolist(),
                    batch=samples_per_step[stream],
                    num_substreams=num_substreams,
                    shuffle_window=shuffle_window,
                    seed=int(randomness.bits(seed, 100 + STREAMS.index(stream))),
                    samples_per_row=mine.num_captions,
                    row_weights=mine.weights,
                )
                self.slots[stream] = self.orders[stream].slots(rank, num_workers)
                self._most_slots[stream] = len(self.orders[stream].slots(0, num_workers))
            except ValueError as error:
                raise ValueError(f"{stream} stream: {error}") from None
            self.readers[stream] = HeldRows(dataset, builders[stream].columns, self.reading)

    def step(self, step: int) -> list[MicroBatch]:
        """Return this worker's micro-batches of a step; threads may ask for several steps at once.

        Raises:
            ValueError: a stored image is damaged, or the tokenizer's grid is not the network's.
            ManifestError: a part of a dataset is missing or disagrees with its manifest.
            StoreError: the store cannot be read at present.
        """
        started = [
            self._building.submit(
                self.use.building, _built, self.builders[stream], self.crop, is_empty, *rest
            )
            for stream, is_empty, *rest in self._planned(step)
        ]
        return [micro.result() for micro in started]

    def num_micro_batches(self, stream: Stream) -> int:
        """Return the number of micro-batches of a stream in a step, the same on every worker."""
        return -(-self._most_slots[stream] // self.micro_batch)

    def arranged(
        self, stream: Stream, rows: pa.Table, step: int, slots: Ints, members: Ints
    ) -> tuple[pa.Table, Ints, Ints | None]:
        """Return rows, slots and captions of a stream's samples as they fill its micro-batches.

        Args:
            stream: of the samples.
            rows: S rows of its dataset, in the order of the slots.
            step: of the samples.
            slots: (S,) slots of this worker.
            members: (S,) numbers of the captions if an epoch of pairs shows each of them once.

        Returns:
            The same, in the order of the micro-batches; no captions of images and texts.
        """
        if stream != "pair":
            return rows, slots, None
        builder = self.builders[stream]
        captions = members if self.by_caption else builder.drawn_captions(rows, step, slots)
        if len(slots) <= self.micro_batch:
            return rows, slots, captions
        order = np.argsort(builder.caption_lengths(rows, captions), kind="stable")
        return rows.take(order), slots[order], captions[order]

    def _planned(
        self, step: int
    ) -> Iterator[tuple[Stream, bool, pa.Table, int, Ints, Ints | None]]:
        """Yield the stream of each micro-batch, whether it predicts nothing, and its contents."""
        for stream, order in self.orders.items():
            slots = self.slots[stream]
            numbers, members = order.samples(step, slots)
            self._hold(stream, step, numbers)
            with self.use.reading():
                table = self.readers[stream].take(numbers)
            table, slots, captions = self.arranged(stream, table, step, slots, members)
            for i in range(0, self._most_slots[stream], self.micro_batch):
                is_empty = i >= len(slots)
                first = 0 if is_empty else i  # of the first one, whose shape is that of most
                rows = table.slice(first, self.micro_batch)
                some = slice(first, first + self.micro_batch)
                chosen = None if captions is None else captions[some]
                yield stream, is_empty, rows, step, slots[some], chosen

    def _hold(self, stream: Stream, step: int, numbers: Ints) -> None:
        """Start to read what this and the next steps need, and drop what no step needs."""
        block = step // _STEPS_AHEAD
        with self._lock:
            # Another thread may be a step ahead of this one, or still behind.
            if stream in self._held and self._held[stream] - block in (0, 1):
                return
            self._held[stream] = block
        first = max(block * _STEPS_AHEAD - _STEPS_BEHIND, 0)
        steps = range(first, (block + 2) * _STEPS_AHEAD)
        groups = self.orders[stream].groups(steps, self.slots[stream])
        reader = self.readers[stream]
        reader.hold(
            self._groups[stream][sorted(groups)].tolist(), first=reader.groups_of(numbers).tolist()
        )


def _built(
    builder: SampleBuilder,
    crop: CropMaker,
    is_empty: bool,
    rows: pa.Table,
    step: int,
    slots: Ints,
    captions: Ints | None,
) -> MicroBatch:
    """Build a micro-batch; an empty one has no masked positions, so it adds to no sum."""
    batch = builder.build(rows, step, slots, captions, crop)
    if not is_empty:
        return batch
    image, text = (
        None if mask is None else torch.zeros_like(mask)
        for mask in (batch.image_mask, batch.text_mask)
    )
    return replace(batch, image_mask=image, text_mask=text)
