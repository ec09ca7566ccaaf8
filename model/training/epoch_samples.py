"""The samples that a row group gives in an epoch.

A row holds one or more samples: an image and each of its captions is one sample of the pair
stream. A row with weight w gives w times its samples in an epoch: all of them w times where w is a
whole number; otherwise each epoch continues where the one before has ended in an endless sequence
of permutations of the group's samples. The number of samples of a group is the same in every epoch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.training import randomness

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Pool:
    """All rows of one weight."""

    weight: float
    num_samples: Ints
    "Samples of each row group, (G,)."
    per_epoch: Ints
    "Samples that each row group gives in an epoch, (G,)."


class EpochSamples:
    """Which samples each row group gives in each epoch."""

    def __init__(
        self,
        group_rows: Ints,
        samples_per_row: NDArray[np.integer] | None,
        row_weights: NDArray[np.floating] | None,
        seed: int,
    ) -> None:
        """Count the samples.

        Args:
            group_rows: (G,), number of rows of each row group.
            samples_per_row: number of samples of each row; None stands for 1.
            row_weights: weight of each row; None stands for 1.
            seed: seed of the stream's order.

        Raises:
            ValueError: an array has not one number for each row, or a weight is negative.
        """
        self.first_row = np.concatenate([[0], np.cumsum(group_rows)[:-1]]).astype(np.int64)
        self.group_rows, self.seed = group_rows, seed
        self.samples_per_row, self.row_weights = samples_per_row, row_weights
        for name, numbers in (("samples_per_row", samples_per_row), ("row_weights", row_weights)):
            if numbers is not None and len(numbers) != group_rows.sum():
                raise ValueError(
                    f"{name} has {len(numbers)} numbers for {group_rows.sum()} rows; give one each"
                )
        self._pools = self._count()
        self.per_epoch: Ints = np.sum([pool.per_epoch for pool in self._pools], axis=0)
        "Samples that each row group gives in an epoch, (G,)."
        self.most_per_row: Ints = (
            np.ones(len(group_rows), np.int64)
            if samples_per_row is None
            else np.maximum.reduceat(samples_per_row, self.first_row).astype(np.int64)
        )
        "Largest number of samples of a row in each row group, (G,)."

    def of(self, group: int, epoch: int) -> tuple[Ints, Ints]:
        """Return row number and index within the row of a group's samples in an epoch.

        The samples are in the order of their rows; those of one row are in a random order.
        """
        first = int(self.first_row[group])
        rows = np.arange(first, first + int(self.group_rows[group]))
        if self.samples_per_row is None and self.row_weights is None:
            return rows, np.zeros(len(rows), np.int64)
        found = [self._of_pool(number, group, epoch, rows) for number in range(len(self._pools))]
        all_rows = np.concatenate([some for some, _ in found])
        members = np.concatenate([some for _, some in found])
        order = np.argsort(all_rows, kind="stable")
        return all_rows[order], members[order]

    def _of_pool(self, number: int, group: int, epoch: int, rows: Ints) -> tuple[Ints, Ints]:
        pool = self._pools[number]
        if self.row_weights is not None:
            rows = rows[self.row_weights[rows] == pool.weight]
        counts = self._counts(rows)
        starts = np.cumsum(counts) - counts
        row_of_sample = np.repeat(rows, counts)
        member = np.arange(len(row_of_sample)) - np.repeat(starts, counts)
        total, size = len(row_of_sample), int(pool.per_epoch[group])
        if not size:
            return row_of_sample[:0], member[:0]
        begin, end = epoch * size, (epoch + 1) * size
        chosen = [
            randomness.generator(self.seed, 1, group, number, turn).permutation(total)[
                max(begin - turn * total, 0) : end - turn * total
            ]
            for turn in range(begin // total, -(-end // total))
        ]
        picked = np.concatenate(chosen)
        return row_of_sample[picked], member[picked]

    def _counts(self, rows: Ints) -> Ints:
        if self.samples_per_row is None:
            return np.ones(len(rows), np.int64)
        return self.samples_per_row[rows].astype(np.int64)

    def _count(self) -> list[_Pool]:
        samples = self.samples_per_row
        if self.row_weights is None:
            totals = (
                self.group_rows
                if samples is None
                else np.add.reduceat(samples, self.first_row, dtype=np.int64)
            )
            return [_Pool(1, totals, totals)]
        pools = []
        for number, weight in enumerate(np.unique(self.row_weights)):
            if weight < 0:
                raise ValueError(f"a row has the weight {weight}; weights are 0 or more")
            mine = (self.row_weights == weight) * (1 if samples is None else samples)
            totals = np.add.reduceat(mine, self.first_row, dtype=np.int64)
            # A fraction of a sample is rounded by chance, once for all epochs.
            chance = randomness.uniform(self.seed, 2, number, np.arange(len(totals)))
            pools.append(
                _Pool(float(weight), totals, np.floor(weight * totals + chance).astype(np.int64))
            )
        return pools
