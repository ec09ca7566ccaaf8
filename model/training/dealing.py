"""Which row groups each substream reads in an epoch, and in which order.

Row groups of the same size change places at random in each epoch, so every substream reads as many
samples in one epoch as in any other: the epoch of a position is one division. Substreams differ by
about one row group.

A row group whose rows hold several samples is visited several times in an epoch, at even
distances, and gives a part of each row's samples at each visit. So the samples of a row are spread
over the epoch, and the row group is read a few times only.

A window has the samples of ``shuffle_window`` visits. The first window of substream c has
(c + 1) / C of them, so the windows of the C substreams end one after another and row groups are
read evenly, except where an epoch begins. A window may end within a visit: a random part of the
visit's samples belongs to it and the others to the next window, and the row group is held for both.
A window ends with a step, so samples of a row that two windows have do not meet in one step.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.training import randomness
from model.training.epoch_samples import EpochSamples
from model.training.spreading import spread_evenly

Ints = NDArray[np.int64]
_MOST_VISITS: Final = 8


@dataclass(frozen=True)
class Visit:
    """Samples of a visit of a row group: all of them, or those of a window."""

    group: int
    "The row group."
    number: int
    "Number of the visit among those of the row group."
    samples: slice
    "Which of the visit's samples, in the order in which they are cut."


@dataclass(frozen=True)
class Window:
    """Consecutive samples of a substream that are shuffled together."""

    visits: Sequence[Visit]
    "Where the samples come from."
    first: int
    "Position of the window's first sample in the substream's epoch."


class Dealing:
    """The row groups of each substream, epoch by epoch."""

    def __init__(
        self,
        samples: EpochSamples,
        *,
        num_substreams: int,
        shuffle_window: int,
        per_step: int,
        seed: int,
    ) -> None:
        """Deal the row groups.

        Args:
            samples: which samples each row group gives.
            num_substreams: C.
            shuffle_window: number of visits of row groups in a window.
            per_step: number of samples of a substream in a step.
            seed: seed of the stream's order.
        """
        self.samples, self.seed, self.per_step = samples, seed, per_step
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

    def rows_of(self, visit: Visit, epoch: int) -> tuple[Ints, Ints]:
        """Return row number and index within the row of the samples of a visit."""
        group, number = visit.group, int(self.num_visits[visit.group])
        rows, members = self.samples.of(group, epoch)
        # Samples of one row follow each other here, so they go to different visits.
        phase = self._phases(np.array(group), epoch)
        of_visit = np.flatnonzero((np.arange(len(rows)) + phase) % number == visit.number)
        if visit.samples != slice(0, len(of_visit)):
            order = spread_evenly(rows[of_visit], self.seed, 7, epoch, group, visit.number)
            of_visit = of_visit[order[visit.samples]]
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
        visited, visit, sizes = visited[sizes > 0], visit[sizes > 0], sizes[sizes > 0]
        stops = np.cumsum(sizes)
        ends = self._window_ends(substream, epoch, stops)
        return [
            Window(list(_between(first, end, visited, visit, stops)), first)
            for first, end in pairwise([0, *ends])
        ]

    def _window_ends(self, substream: int, epoch: int, stops: Ints) -> list[int]:
        """Return the positions at which windows end, each with a step except the last one."""
        length, size = int(stops[-1]), self.shuffle_window
        staggers = len(stops) >= 2 * size
        first = size * (substream + 1) / self.num_substreams if staggers else size
        ends = np.arange(first, len(stops), size)  # in visits
        positions = np.interp(ends, np.arange(len(stops) + 1), [0, *stops])
        before = epoch * length
        steps = np.unique(np.rint((before + positions) / self.per_step).astype(np.int64))
        whole = steps * self.per_step - before
        return [*whole[(whole > 0) & (whole < length)].tolist(), length]

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


def _between(first: int, end: int, groups: Ints, numbers: Ints, stops: Ints) -> Iterator[Visit]:
    """Yield what a window takes of visits, of which each ends at the position in ``stops``."""
    begin, last = np.searchsorted(stops, [first, end - 1], "right").tolist()
    for i in range(begin, last + 1):
        start = int(stops[i - 1]) if i else 0
        taken = slice(max(first - start, 0), min(end, int(stops[i])) - start)
        yield Visit(int(groups[i]), int(numbers[i]), taken)


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
