"""Rows of one committed table by row number, through a cache of row groups."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestration import Dataset

CACHED_GROUPS: Final = 64


class RowReader:
    """Reads rows of one table by number and keeps the row groups that were used last."""

    def __init__(self, dataset: Dataset, columns: Sequence[str], keep: int = CACHED_GROUPS) -> None:
        """Open the table.

        Args:
            dataset: the table to read.
            columns: names of the columns to read.
            keep: largest number of row groups in the cache.
        """
        self.dataset = dataset
        self.groups = dataset.row_groups()
        self.columns = list(columns)
        self.first_rows = np.array([group.first_row for group in self.groups], np.int64)
        self.keep = keep
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def groups_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices of the row groups that hold these rows, ascending."""
        return np.unique(self._groups_of(rows))

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return the rows with these numbers, in the order given; threads may call it at once."""
        group_of_row = self._groups_of(rows)
        order = np.argsort(group_of_row, kind="stable")
        tables = []
        for group in np.unique(group_of_row):
            chosen = order[group_of_row[order] == group]
            within = _indices(rows[chosen] - self.first_rows[group])
            tables.append(self._group(int(group)).take(within))
        inverse = np.empty(len(rows), np.int64)
        inverse[order] = np.arange(len(rows))
        return pa.concat_tables(tables).take(_indices(inverse))

    def _groups_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.first_rows, rows, side="right") - 1

    def _group(self, index: int) -> pa.Table:
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
            table = self.dataset.read_group(self.groups[index], self.columns)
            self._cache[index] = table
            if len(self._cache) > self.keep:
                self._cache.popitem(last=False)
            return table


def _indices(numbers: NDArray[np.int64]) -> pa.Array:
    """Return an Arrow array of the numbers; ``pa.array`` would import pandas first."""
    buffer = pa.py_buffer(np.ascontiguousarray(numbers, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, buffer])
