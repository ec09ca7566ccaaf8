"""Global rows: the rows of all input datasets, numbered one dataset after the other.

Evaluation sets come first, then sources of pairs, then sources of images. Of two duplicates the one
with the smaller number is kept, so this order is that of the recipe.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import pyarrow as pa

from orchestration import Dataset, Slice

_CHUNK_ROWS: Final = 1 << 14


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one dataset."""

    dataset: int
    "Number of the dataset among the sources; negative for an evaluation set."
    row: int
    "Row number of the first row."
    global_row: int
    "Global row number of the first row."
    table: pa.Table


@dataclass(frozen=True)
class Layout:
    """The input datasets, in the order of the recipe."""

    evaluation_sets: Sequence[Dataset]
    pairs: Sequence[Dataset]
    images: Sequence[Dataset]
    held_out: frozenset[int] = frozenset()
    "Numbers of the sources that are held out from training as a whole."

    @cached_property
    def _datasets(self) -> list[Dataset]:
        return [*self.evaluation_sets, *self.pairs, *self.images]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(dataset.num_rows for dataset in self._datasets))

    @property
    def num_rows(self) -> int:
        """Number of rows of all datasets."""
        return self._ends[-1] if self._ends else 0

    @cached_property
    def first_source_row(self) -> int:
        """Global row number of the first row that is no evaluation image."""
        return sum(dataset.num_rows for dataset in self.evaluation_sets)

    @cached_property
    def first_image_row(self) -> int:
        """Global row number of the first row of a source without captions."""
        return self.first_source_row + sum(dataset.num_rows for dataset in self.pairs)

    def slices(self, name: str, start: int, stop: int, size: int) -> list[Slice]:
        """Return slices of ``size`` rows; their ids begin with ``name``."""
        firsts = range(start, stop, size)
        return [
            Slice(f"{name}{i:06d}", {"start": first, "stop": min(first + size, stop)},
                  min(first + size, stop) - first)
            for i, first in enumerate(firsts)
        ]  # fmt: skip

    def chunks(self, slice_: Slice, columns: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows of a slice in chunks, so that few long texts are in memory at once."""
        global_row, stop = slice_.payload["start"], slice_.payload["stop"]
        while global_row < stop:
            number = bisect.bisect_right(self._ends, global_row)
            dataset = self._datasets[number]
            row = global_row - self._ends[number] + dataset.num_rows
            count = min(_CHUNK_ROWS, stop - global_row, dataset.num_rows - row)
            table = dataset.read(row, row + count, columns)
            yield Chunk(number - len(self.evaluation_sets), row, global_row, table)
            global_row += count
