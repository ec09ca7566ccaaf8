"""Reading committed rows by number: what stages and training share.

``RowReader`` keeps the row groups that it read last; ``KeptImages`` is the view of the images
datasets that curation left.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataprep.images import decode_stored
from dataprep.views import random_cut
from orchestration import Dataset

_GROUPS_KEPT = 64


class RowReader:
    """Rows of one table by number, through a cache of row groups."""

    def __init__(self, dataset: Dataset, columns: Sequence[str], keep: int = _GROUPS_KEPT) -> None:
        self.dataset = dataset
        self.groups = dataset.row_groups()
        self.columns = list(columns)
        self.first_rows = np.array([group.first_row for group in self.groups], np.int64)
        self.keep = keep
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return the rows in the order given."""
        owner = np.searchsorted(self.first_rows, rows, side="right") - 1
        order = np.argsort(owner, kind="stable")
        tables = []
        for group in np.unique(owner):
            chosen = order[owner[order] == group]
            tables.append(
                self._group(int(group)).take(pa.array(rows[chosen] - self.first_rows[group]))
            )
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return pa.concat_tables(tables).take(pa.array(back))

    def _group(self, index: int) -> pa.Table:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        table = self.dataset.read_group(self.groups[index], self.columns)
        self._cache[index] = table
        if len(self._cache) > self.keep:
            self._cache.popitem(last=False)
        return table


class KeptImages:
    """The images that curation kept, numbered in its order."""

    def __init__(
        self, kept: Sequence[Dataset], images: Sequence[Dataset], columns: Sequence[str]
    ) -> None:
        """Open the view.

        Args:
            kept: tables of curation, one after the other.
            images: curation's inputs, in its order.
            columns: of the images to read.
        """
        places = pa.concat_tables([table.read(columns=["dataset", "row"]) for table in kept])
        self.dataset = places["dataset"].to_numpy()
        self.row = places["row"].to_numpy()
        self._readers = [RowReader(dataset, columns) for dataset in images]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, places: NDArray[np.int64]) -> pa.Table:
        """Return the images at ``places``, in that order."""
        datasets, rows = self.dataset[places], self.row[places]
        tables, order = [], []
        for number in np.unique(datasets):
            chosen = np.flatnonzero(datasets == number)
            tables.append(self._readers[number].take(rows[chosen]))
            order.append(chosen)
        back = pc.sort_indices(pa.array(np.concatenate(order)))
        return pa.concat_tables(tables).take(back)


def cut_views(
    images: KeptImages,
    places: NDArray[np.int64],
    min_scale: float,
    seed: int,
    number: int,
    size: int,
) -> NDArray[np.uint8]:
    """Return view ``number`` of each image: (B, size, size, 3) RGB."""
    table = images.take(places)
    crops = []
    for name, jpeg in zip(table["sample_id"].to_pylist(), table["jpeg"], strict=True):
        pixels = decode_stored(jpeg.as_py())
        crops.append(random_cut(pixels, min_scale, seed, name, number, size)[1])
    return np.stack(crops)
