"""Rows of one committed table by row number, whose row groups are read in the background."""

from collections.abc import Collection, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestration import Dataset
from pipelines.readers.rows import RowReader


class HeldRows(RowReader):
    """Keeps exactly the row groups that its caller holds; an executor reads them."""

    def __init__(self, dataset: Dataset, columns: Sequence[str], pool: Executor) -> None:
        """Open the table.

        Args:
            dataset: the table to read.
            columns: names of the columns to read.
            pool: reads the row groups.
        """
        super().__init__(dataset, columns, keep=0)
        self._pool = pool
        self._held: dict[int, Future[pa.Table]] = {}
        self.num_reads = 0
        "Row groups that were read."

    @property
    def num_bytes(self) -> int:
        """Memory of the row groups that are held and read."""
        with self._lock:
            held = [held for held in self._held.values() if held.done() and not held.cancelled()]
        return sum(table.result().nbytes for table in held)

    def hold(self, groups: Collection[int], first: Collection[int] = ()) -> None:
        """Start to read row groups that are not held yet, and drop the others.

        Args:
            groups: indices of the row groups to hold.
            first: those of them to read before the others.
        """
        wanted = set(groups)
        with self._lock:
            for index in self._held.keys() - wanted:
                self._held.pop(index).cancel()
            for index in [*first, *sorted(wanted)]:
                if index not in self._held:
                    self._held[index] = self._pool.submit(self._read, index)

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return the rows with these numbers, in the order given; threads may call it at once."""
        of_row = self._groups_of(rows)
        # All row groups are in memory, so that each row is copied once, not three times.
        groups = {index: self._group(index) for index in np.unique(of_row).tolist()}
        places = zip(of_row.tolist(), (rows - self.first_rows[of_row]).tolist(), strict=True)
        return pa.concat_tables([groups[index].slice(i, 1) for index, i in places]).combine_chunks()

    def _group(self, index: int) -> pa.Table:
        with self._lock:
            held = self._held.get(index)
        if held is not None:
            with suppress(CancelledError):  # another thread may drop it meanwhile
                return held.result()
        return self._read(index)

    def _read(self, index: int) -> pa.Table:
        self.num_reads += 1
        return self.dataset.read_group(self.groups[index], self.columns)
