"""Which row groups each substream reads in an epoch, and in which order.

Row groups of the same size change places at random in each epoch, so every substream reads as many
samples in one epoch as in any other: the epoch of a position is one division. Substreams differ by
about one row group.

A row group whose rows hold several samples is visited several times in an epoch, at even
distances, and gives a part of each row's samples at each visit. So the samples of a row are spread
over the epoch, and the row group is read a few times only.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.training import randomness
from model.training.epoch_samples import EpochSamples

Ints = NDArray[np.int64]
_MOST_VISITS: Final = 8


@dataclass(frozen=True)
class Window:
    """Consecutive visits of a substream whose samples are shuffled together."""

    visits: Sequence[tuple[int, int]]
    "Row group and number of the visit."
    first: int
    "Position of the window's first sample in the substream's epoch."


class Dealing:
    """The row groups of each substream, epoch by epoch."""

    def __init__(
        self, samples: EpochSamples, *, num_substreams: int, shuffle_window: int, seed: int
    ) -> None:
        self.samples, self.seed = samples, seed
        self.num_substreams, self.shuffle_window = num_substreams, shuffle_window
        sizes = samples.per_epoch
        self._sorted = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
        owners, self.lengths = _deal(sizes[self._sorted], num_substreams)
        "Samples of each substream in an epoch, (C,)."
        by_owner = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=num_substreams))
        self._seats = np.split(by_owner, ends[:-1])
        windows = np.maximum(np.diff(ends, prepend=0) // shuffle_window, 1)
        most = np.minimum(_MOST_VISITS, windows.min())
        self.num_visits: Ints = np.minimum(samples.most_per_row, most)
        "Visits of each row group in an epoch, (G,)."
        self._seated = lru_cache(maxsize=2)(self._seat_groups)

    def visit(self, group: int, visit: int, epoch: int) -> tuple[Ints, Ints]:
        """Return row number and index within the row of the samples of one visit."""
        rows, members = self.samples.of(group, epoch)
        number = int(self.num_visits[group])
        # Samples of one row follow each other here, so they go to different visits.
        of_visit = (np.arange(len(rows)) + self._phases(np.array(group), epoch)) % number == visit
        return rows[of_visit], members[of_visit]

    def windows(self, substream: int, epoch: int) -> list[Window]:
        """Return the windows of a substream's epoch."""
        groups = self._seated(epoch)[self._seats[substream]]
        number = self.num_visits[groups]
        of_visit = np.repeat(np.arange(len(groups)), number)
        visit = np.arange(len(of_visit)) - np.repeat(np.cumsum(number) - number, number)
        start = randomness.uniform(self.seed, 3, epoch, groups)
        order = np.argsort((visit + start[of_visit]) / number[of_visit], kind="stable")
        visited, visit = groups[of_visit[order]], visit[order]
        sizes = self._visit_sizes(visited, visit, epoch)
        ends = self._window_ends(substream, len(visited))
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        pairs = list(zip(visited.tolist(), visit.tolist(), strict=True))
        return [
            Window(pairs[start:end], int(firsts[start]))
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]

    def _window_ends(self, substream: int, num_visits: int) -> list[int]:
        """Return where windows end; those of different substreams end at different times."""
        size = self.shuffle_window
        staggered = size * (substream + 1) // self.num_substreams if num_visits >= 2 * size else 0
        return [*range(staggered or size, num_visits, size), num_visits]

    def _phases(self, groups: Ints, epoch: int) -> Ints:
        return randomness.integers(self.num_visits[groups], self.seed, 4, epoch, groups)

    def _visit_sizes(self, groups: Ints, visit: Ints, epoch: int) -> Ints:
        number, total = self.num_visits[groups], self.samples.per_epoch[groups]
        late = (visit - self._phases(groups, epoch)) % number
        return total // number + (late < total % number)

    def _seat_groups(self, epoch: int) -> Ints:
        """Return the row groups by size, those of equal size in a random order."""
        groups = self._sorted
        chance = randomness.bits(self.seed, 5, epoch, groups)
        return groups[np.lexsort((chance, -self.samples.per_epoch[groups]))]


def _deal(sizes: Ints, num_substreams: int) -> tuple[Ints, Ints]:
    """Give each size, largest first, to the substream that has least so far.

    Returns:
        The substream of each size, and the sum of each substream.
    """
    heap = [(0, substream) for substream in range(num_substreams)]
    owners = np.empty(len(sizes), np.int64)
    for i, size in enumerate(sizes.tolist()):
        total, substream = heap[0]
        owners[i] = substream
        heapq.heapreplace(heap, (total + size, substream))
    lengths = np.zeros(num_substreams, np.int64)
    for total, substream in heap:
        lengths[substream] = total
    return owners, lengths
