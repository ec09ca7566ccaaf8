"""The sampling order: the sample of each slot of each step, as a pure function.

A stream is cut into C canonical substreams. In each epoch the row groups are dealt to the
substreams in a seeded order; a substream reads its own in windows of a few row groups and shuffles
the samples within each window. The windows of different substreams end at different steps, so row
groups are read evenly (``model.training.dealing``). Slot s of a batch of B belongs to substream
s // (B / C). A row may hold several samples (``model.training.epoch_samples``), which are spread
over the epoch.

So resuming needs only the step, and the batch is the same for every number of workers up to
C; the price is a shuffle that is complete over row groups but local over rows.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model.training.dealing import Dealing, Window
from model.training.epoch_samples import EpochSamples, Ints
from model.training.spreading import spread


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
        samples_per_row: NDArray[np.integer] | None = None,
        row_weights: NDArray[np.floating] | None = None,
    ) -> None:
        """Prepare the order.

        Args:
            group_rows: number of rows of each row group.
            batch: B, samples of this stream in a step, over all workers.
            num_substreams: C.
            shuffle_window: number of row groups whose samples are shuffled together.
            seed: seed of the stream's order.
            samples_per_row: number of samples that each row holds; None stands for 1.
            row_weights: how many times the samples of each row are read in an epoch; None stands
                for 1.

        Raises:
            ValueError: B is not a multiple of C, there are no rows, there are fewer row groups
                with samples than substreams, or a row group is empty.
        """
        if batch % num_substreams:
            raise ValueError(
                f"a batch of {batch} is not a multiple of {num_substreams} substreams; "
                "change one of them"
            )
        if not len(group_rows):
            raise ValueError("there are no rows to train on; add sources, or hold out fewer rows")
        if min(group_rows) < 1:
            raise ValueError(
                f"row group {int(np.argmin(group_rows))} has no rows; leave empty row groups out"
            )
        self.batch = batch
        self.num_substreams = num_substreams
        self.per_substream = batch // num_substreams
        self.seed = seed
        samples = EpochSamples(np.asarray(group_rows, np.int64), samples_per_row, row_weights, seed)
        if np.count_nonzero(samples.per_epoch) < num_substreams:
            raise ValueError(
                f"{np.count_nonzero(samples.per_epoch)} row groups are fewer than "
                f"{num_substreams} substreams; write smaller row groups or use fewer substreams"
            )
        self._dealing = Dealing(
            samples,
            num_substreams=num_substreams,
            shuffle_window=shuffle_window,
            per_step=self.per_substream,
            seed=seed,
        )
        self._windows = lru_cache(maxsize=2 * num_substreams)(self._windows_of)
        self._samples_of = lru_cache(maxsize=2 * num_substreams)(self._shuffled)

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples that all substreams together read in an epoch."""
        return int(self._dealing.lengths.sum())

    def slots(self, rank: int, num_workers: int) -> Ints:
        """Return the slots of the global batch that a worker fills: substreams c ≡ rank (mod W).

        Where W does not divide C, the first workers fill one substream more than the last ones.

        Raises:
            ValueError: there are more workers than substreams.
        """
        if num_workers > self.num_substreams:
            raise ValueError(
                f"{num_workers} workers are more than {self.num_substreams} substreams; "
                "set substreams to a multiple of the workers"
            )
        slots = np.arange(self.batch)
        return slots[(slots // self.per_substream) % num_workers == rank]

    def samples(self, step: int, slots: Ints) -> tuple[Ints, Ints]:
        """Return row number and index within the row of the sample of each slot at ``step``."""
        rows, members = np.empty(len(slots), np.int64), np.empty(len(slots), np.int64)
        substreams, offsets = np.divmod(slots, self.per_substream)
        for substream in np.unique(substreams):
            mine = np.flatnonzero(substreams == substream)
            positions = step * self.per_substream + offsets[mine]
            self._fill(int(substream), positions, rows, members, mine)
        return rows, members

    def groups(self, steps: range, slots: Ints) -> set[int]:
        """Return the row groups of the windows from which the slots are filled at some steps.

        Args:
            steps: consecutive steps.
            slots: slots of whole substreams.
        """
        found: set[int] = set()
        first, stop = steps.start * self.per_substream, steps.stop * self.per_substream
        for substream in np.unique(slots // self.per_substream).tolist():
            length = int(self._dealing.lengths[substream])
            for epoch in range(first // length, -(-stop // length)):
                windows, firsts = self._windows(substream, epoch)
                ends = np.array([first, stop - 1]) - epoch * length
                begin, end = np.searchsorted(firsts, ends.clip(0, length - 1), "right")
                for window in windows[begin - 1 : end]:
                    found.update(visit.group for visit in window.visits)
        return found

    def _fill(
        self, substream: int, positions: Ints, rows: Ints, members: Ints, targets: Ints
    ) -> None:
        """Write the samples at some positions of a substream's endless sequence."""
        length = int(self._dealing.lengths[substream])
        for epoch in np.unique(positions // length).tolist():
            windows, firsts = self._windows(substream, epoch)
            in_epoch = np.flatnonzero(positions // length == epoch)
            places = positions[in_epoch] - epoch * length
            number = np.searchsorted(firsts, places, "right") - 1
            for index in np.unique(number).tolist():
                chosen = number == index
                within = places[chosen] - windows[index].first
                some_rows, some_members = self._samples_of(substream, epoch, index)
                rows[targets[in_epoch[chosen]]] = some_rows[within]
                members[targets[in_epoch[chosen]]] = some_members[within]

    def _windows_of(self, substream: int, epoch: int) -> tuple[list[Window], Ints]:
        """Return the windows of a substream's epoch, and the position at which each begins."""
        windows = self._dealing.windows(substream, epoch)
        return windows, np.array([window.first for window in windows])

    def _shuffled(self, substream: int, epoch: int, index: int) -> tuple[Ints, Ints]:
        """Return rows and samples of a window in their order."""
        window = self._windows(substream, epoch)[0][index]
        found = [self._dealing.rows_of(visit, epoch) for visit in window.visits]
        rows = np.concatenate([some for some, _ in found])
        members = np.concatenate([some for _, some in found])
        first = epoch * int(self._dealing.lengths[substream]) + window.first
        blocks = (first + np.arange(len(rows))) // self.per_substream
        order = spread(rows, blocks, self.seed, 6, substream, epoch, index)
        return rows[order], members[order]
