"""The feed of a fine-tuning: the prepared examples → the micro-batches of a step.

The order is that of pretraining (``model/training/order.py``): every used sample exactly once in
an epoch, and the same global batch for every number of workers. A small split has fewer row groups
than substreams, so the order runs over runs of rows that are at most a row group long.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.training import randomness
from model.training.order import Order
from orchestration import Dataset
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.pretrain.feed_use import FeedUse
from pipelines.readers.held_rows import HeldRows

Build = Callable[[pa.Table, Ints, int, Ints, Ints], TaskBatch]
"(rows, row numbers, step, slots, indices of texts) → micro-batch."

_RUNS_PER_SUBSTREAM: Final = 8
"Number of runs of a substream of a small split."
_STEPS_AHEAD: Final = 8
"Steps by which row groups are read before they are needed."
_STEPS_BEHIND: Final = 2
_READ_THREADS: Final = 4


class TaskFeed:
    """The micro-batches of each step for one worker."""

    def __init__(
        self,
        dataset: Dataset,
        columns: Sequence[str],
        build: Build,
        samples_per_row: NDArray[np.int64],
        *,
        batch_size: int,
        micro_batch: int,
        num_substreams: int,
        shuffle_window: int,
        seed: int,
        rank: int,
        num_workers: int,
        num_threads: int = 1,
    ) -> None:
        """Open the split.

        Args:
            dataset: the prepared training split.
            columns: what ``build`` reads.
            build: makes a micro-batch.
            samples_per_row: number of samples of each row; 0 leaves a row out.
            batch_size: samples in a step, over all workers.
            micro_batch: largest number of samples in a micro-batch.
            num_substreams: C, see ``model.training.order``.
            shuffle_window: number of row groups of a substream that are shuffled together.
            seed: of the order.
            rank: number of this worker, from 0.
            num_workers: number of workers.
            num_threads: threads that decode and build.

        Raises:
            ValueError: batch, substreams, workers or rows do not fit together.
        """
        num_rows = np.count_nonzero(samples_per_row)
        if num_rows < num_substreams:
            raise ValueError(
                f"{num_rows} examples to train on are fewer than {num_substreams} substreams; set "
                f"finetune.substreams to {max(num_rows, 1)} or less"
            )
        runs = _runs(dataset, samples_per_row, num_substreams)
        self.order = Order(
            [len(run) for run in runs],
            batch=batch_size,
            num_substreams=num_substreams,
            shuffle_window=shuffle_window,
            seed=int(randomness.bits(seed, 100)),
            samples_per_row=samples_per_row[np.concatenate(runs)],
        )
        self._rows = np.concatenate(runs)
        "Row number of each row of the order, which leaves unused rows out."
        self._firsts = np.cumsum([0, *map(len, runs)])
        self.slots = self.order.slots(rank, num_workers)
        self.micro_batch = micro_batch
        self._build = build
        self._reader = HeldRows(dataset, columns, ThreadPoolExecutor(_READ_THREADS, "feed-read"))
        self._threads = ThreadPoolExecutor(
            num_threads, "feed-build", initializer=cv2.setNumThreads, initargs=(0,)
        )
        self.use = FeedUse(num_threads, section="finetune")

    def step(self, step: int) -> list[TaskBatch]:
        """Return this worker's micro-batches of a step.

        Raises:
            ValueError: a stored image is damaged.
            ManifestError: a part of the split is missing or disagrees with its manifest.
            StoreError: the store cannot be read at present.
        """
        ordered, texts = self.order.samples(step, self.slots)
        numbers = self._rows[ordered]
        self._hold(step)
        with self.use.reading():
            rows = self._reader.take(numbers)
        started = []
        for i in range(0, len(self.slots), self.micro_batch):
            some = slice(i, i + self.micro_batch)
            made = partial(
                self._build,
                rows.slice(i, self.micro_batch),
                numbers[some],
                step,
                self.slots[some],
                texts[some],
            )
            started.append(self._threads.submit(self.use.building, made))
        return [micro.result() for micro in started]

    def _hold(self, step: int) -> None:
        steps = range(max(step - _STEPS_BEHIND, 0), step + _STEPS_AHEAD)  # threads may be behind
        runs = sorted(self.order.groups(steps, self.slots))
        firsts = self._rows[self._firsts[runs]]
        lasts = self._rows[self._firsts[np.array(runs) + 1] - 1]
        groups = self._reader.groups_of(np.concatenate([firsts, lasts]))
        self._reader.hold(groups.tolist())


def _runs(
    dataset: Dataset, samples_per_row: NDArray[np.int64], num_substreams: int
) -> list[NDArray[np.int64]]:
    """Return the used rows of each row group, cut into runs that are enough for the substreams."""
    used = np.flatnonzero(samples_per_row)
    longest = max(len(used) // (num_substreams * _RUNS_PER_SUBSTREAM), 1)
    runs = []
    for group in dataset.row_groups():
        first, stop = np.searchsorted(used, [group.first_row, group.first_row + group.num_rows])
        rows = used[first:stop]
        runs += [rows[i : i + longest] for i in range(0, len(rows), longest)]
    return runs
