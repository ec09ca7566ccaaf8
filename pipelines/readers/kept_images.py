"""The images that curation kept, and crops of them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataprep.images import decode_stored
from dataprep.views import random_cut
from orchestration import Dataset
from pipelines.readers.rows import RowReader

CACHED_GROUPS: Final = 2
_READ_ROWS: Final = 65_536


class KeptImages:
    """The images that curation kept, numbered from 0 in the order of its tables.

    Where they lie is read by the row group of curation too, so that opening them costs nothing and
    memory does not grow with their number.
    """

    def __init__(
        self,
        kept: Sequence[Dataset],
        images: Sequence[Dataset],
        columns: Sequence[str],
        keep: int = CACHED_GROUPS,
    ) -> None:
        """Open the images.

        Args:
            kept: tables of curation, numbered one after the other; their columns ``dataset`` and
                ``row`` point into ``images``.
            images: the images datasets that curation read, in its order.
            columns: names of the columns of ``images`` to read; ``captions`` are read from the
                tables of curation, which has dropped some and added those of copies.
            keep: largest number of row groups of each table in memory; images that are not taken
                in their order need as many as are taken from at a time.
        """
        self._columns = list(columns)
        self._image_columns = [name for name in columns if name != "captions"]
        self._readers = [RowReader(dataset, self._image_columns, keep) for dataset in images]
        self._locations = [RowReader(table, ["dataset", "row"], keep) for table in kept]
        self._captions = [RowReader(table, ["captions"], keep=2) for table in kept]
        self._ends = np.cumsum([0, *(table.num_rows for table in kept)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locations(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of the datasets of images, (B,), and of their rows there, (B,)."""
        found = self._of_curation(self._locations, numbers)
        return _integers(found["dataset"]), _integers(found["row"])

    def row_groups(self, most: int) -> list[int]:
        """Return lengths of runs of images, each within one row group of its dataset.

        Args:
            most: largest length; a longer run is cut.
        """
        runs: list[int] = []
        last = None
        for start in range(0, len(self), _READ_ROWS):
            numbers = np.arange(start, min(start + _READ_ROWS, len(self)))
            datasets, rows = self.locations(numbers)
            groups = np.empty(len(numbers), np.int64)
            for number, reader in enumerate(self._readers):
                mine = datasets == number
                groups[mine] = np.searchsorted(reader.first_rows, rows[mine], "right")
            is_first = np.ones(len(numbers), bool)
            is_first[1:] = (groups[1:] != groups[:-1]) | (datasets[1:] != datasets[:-1])
            firsts = np.flatnonzero(is_first)
            lengths = np.diff(np.append(firsts, len(numbers))).tolist()
            if last == (datasets[0], groups[0]):
                runs[-1] += lengths.pop(0)
            runs += lengths
            last = datasets[-1], groups[-1]
        return [min(most, run - start) for run in runs for start in range(0, run, most)]

    def take(self, numbers: NDArray[np.int64]) -> pa.Table:
        """Return the kept images with these numbers, in the order given."""
        found: dict[str, pa.ChunkedArray] = {}
        if self._image_columns:
            images = _gathered(self._readers, *self.locations(numbers))
            found |= {name: images[name] for name in self._image_columns}
        if "captions" in self._columns:
            found |= {"captions": self._of_curation(self._captions, numbers)["captions"]}
        return pa.table({name: found[name] for name in self._columns})

    def _of_curation(self, readers: Sequence[RowReader], numbers: NDArray[np.int64]) -> pa.Table:
        tables = np.searchsorted(self._ends[1:], numbers, side="right")
        return _gathered(readers, tables, numbers - self._ends[tables])


def _integers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return column.to_numpy().astype(np.int64)


def _gathered(
    readers: Sequence[RowReader], which: NDArray[np.integer], rows: NDArray[np.int64]
) -> pa.Table:
    """Return rows of several tables in the order given.

    Args:
        readers: of the tables.
        which: (B,) number of the table of each row.
        rows: (B,) row numbers in the tables.
    """
    tables, order = [], []
    for number in np.unique(which):
        chosen = np.flatnonzero(which == number)
        tables.append(readers[number].take(rows[chosen]))
        order.append(chosen)
    inverse = pc.sort_indices(pa.array(np.concatenate(order)))
    return pa.concat_tables(tables).take(inverse)


def cut_views(
    images: KeptImages,
    numbers: NDArray[np.int64],
    *,
    min_crop_scale: float,
    seed: int,
    view: int,
    size: int,
    flip: bool,
) -> NDArray[np.uint8]:
    """Return one random crop of each image: (B, size, size, 3) RGB.

    Args:
        images: opened with the columns ``sample_id`` and ``jpeg``.
        numbers: (B,) numbers of the images.
        min_crop_scale: smallest fraction of an image's area that a crop covers.
        seed: seed of the crops.
        view: number of the view; a crop depends on (seed, sample_id, view) alone.
        size: side of a crop in pixels.
        flip: whether half of the crops are mirrored.

    Raises:
        ImageError: a stored image is damaged; the message names its sample.
    """
    table = images.take(numbers)
    crops = []
    for sample_id, jpeg in zip(table["sample_id"].to_pylist(), table["jpeg"], strict=True):
        pixels = decode_stored(jpeg.as_py(), sample_id)
        cut = random_cut(pixels, min_crop_scale, seed, sample_id, view, size, flip=flip)
        crops.append(cut[1])
    return np.stack(crops)
