"""The sampling order: the row of each slot of each step, as a pure function.

A stream is cut into C canonical substreams. In each epoch the row groups are put in a seeded order,
and substream c owns those whose index in it is ≡ c (mod C). It reads them in windows of a few row
groups and shuffles the rows within each window. Slot s of a batch of B belongs to substream
s // (B / C).

So resuming needs only the step, and the batch is the same for every number of workers that
divides C; the price is a shuffle that is complete over row groups but local over rows.
"""

import bisect
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model.training import randomness


class Order:
    """The sampling order of one stream."""

    def __init__(
        self,
        group_rows: Sequence[int],
        *,
        batch: int,
        num_substreams: int,
        shuffle_window: int,
        seed: int,
    ) -> None:
        """Prepare the order.

        Args:
            group_rows: number of rows of each row group.
            batch: B, samples of this stream in a step, over all workers.
            num_substreams: C.
            shuffle_window: number of row groups whose rows are shuffled together.
            seed: seed of the stream's order.

        Raises:
            ValueError: B is not a multiple of C, there are fewer row groups than substreams, or a
                row group is empty.
        """
        if batch % num_substreams:
            raise ValueError(
                f"a batch of {batch} is not a multiple of {num_substreams} substreams; "
                "change one of them"
            )
        if len(group_rows) < num_substreams:
            raise ValueError(
                f"{len(group_rows)} row groups are fewer than {num_substreams} substreams; "
                "write smaller row groups or use fewer substreams"
            )
        if min(group_rows) < 1:
            raise ValueError(
                f"row group {int(np.argmin(group_rows))} has no rows; leave empty row groups out"
            )
        self.batch = batch
        self.num_substreams = num_substreams
        self.per_substream = batch // num_substreams
        self.shuffle_window = shuffle_window
        self.seed = seed
        self.group_rows = np.asarray(group_rows, np.int64)
        self.first_row = np.concatenate([[0], np.cumsum(self.group_rows)[:-1]])
        self._epoch_starts: list[list[int]] = [[0] for _ in range(num_substreams)]
        self._groups = lru_cache(maxsize=4 * num_substreams)(self._groups_of_epoch)
        self._shuffled = lru_cache(maxsize=4 * num_substreams)(self._shuffled_window)

    def slots(self, rank: int, num_workers: int) -> NDArray[np.int64]:
        """Return the slots of the global batch that a worker fills: substreams c ≡ rank (mod W).

        Raises:
            ValueError: the number of workers does not divide C.
        """
        if self.num_substreams % num_workers:
            raise ValueError(
                f"{num_workers} workers do not divide {self.num_substreams} substreams; "
                "set substreams to a multiple of the workers"
            )
        slots = np.arange(self.batch)
        return slots[(slots // self.per_substream) % num_workers == rank]

    def rows(self, step: int, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row number of each slot at ``step``."""
        result = np.empty(len(slots), np.int64)
        for i, slot in enumerate(slots):
            substream, offset = divmod(int(slot), self.per_substream)
            result[i] = self._row(substream, step * self.per_substream + offset)
        return result

    def _row(self, substream: int, position: int) -> int:
        """Return the row number at a position of the substream's endless sequence."""
        starts = self._epoch_starts[substream]
        while starts[-1] <= position:
            epoch = len(starts) - 1
            starts.append(starts[-1] + int(self.group_rows[self._groups(substream, epoch)].sum()))
        epoch = bisect.bisect_right(starts, position) - 1
        rest = position - starts[epoch]
        groups = self._groups(substream, epoch)
        for window, first in enumerate(range(0, len(groups), self.shuffle_window)):
            size = int(self.group_rows[groups[first : first + self.shuffle_window]].sum())
            if rest < size:
                return int(self._shuffled(substream, epoch, window)[rest])
            rest -= size
        raise AssertionError("unreachable: the position lies within the epoch")

    def _groups_of_epoch(self, substream: int, epoch: int) -> NDArray[np.int64]:
        order = randomness.generator(self.seed, epoch).permutation(len(self.group_rows))
        return order[substream :: self.num_substreams]

    def _shuffled_window(self, substream: int, epoch: int, window: int) -> NDArray[np.int64]:
        first = window * self.shuffle_window
        groups = self._groups(substream, epoch)[first : first + self.shuffle_window]
        rows = np.concatenate(
            [np.arange(self.first_row[g], self.first_row[g] + self.group_rows[g]) for g in groups]
        )
        return randomness.generator(self.seed, epoch, substream, window).permutation(rows)
