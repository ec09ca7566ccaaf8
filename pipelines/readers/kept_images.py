"""The images that curation kept, and crops of them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataprep.images import decode_stored
from dataprep.views import random_cut
from orchestration import Dataset
from pipelines.readers.rows import RowReader


class KeptImages:
    """The images that curation kept, numbered from 0 in the order of its tables."""

    def __init__(
        self,
        kept: Sequence[Dataset],
        images: Sequence[Dataset],
        columns: Sequence[str],
        keep: int | None = None,
    ) -> None:
        """Open the images.

        Args:
            kept: tables of curation, numbered one after the other; their columns ``dataset`` and
                ``row`` point into ``images``.
            images: the images datasets that curation read, in its order.
            columns: names of the columns of ``images`` to read; ``captions`` are read from the
                tables of curation, which has dropped some and added those of copies.
            keep: largest number of row groups of each dataset in memory; None takes the default.
        """
        locations = pa.concat_tables([table.read(columns=["dataset", "row"]) for table in kept])
        self.dataset_numbers = locations["dataset"].to_numpy()
        self.row_numbers = locations["row"].to_numpy()
        self._columns = list(columns)
        self._image_columns = [name for name in columns if name != "captions"]
        most = {} if keep is None else {"keep": keep}
        self._readers = [RowReader(dataset, self._image_columns, **most) for dataset in images]
        self._captions = [RowReader(table, ["captions"], keep=2) for table in kept]
        self._ends = np.cumsum([table.num_rows for table in kept])

    def __len__(self) -> int:
        return len(self.row_numbers)

    def row_groups(self, most: int) -> list[int]:
        """Return lengths of runs of images, each within one row group of its dataset.

        Args:
            most: largest length; a longer run is cut.
        """
        groups = np.empty(len(self), np.int64)
        for number, reader in enumerate(self._readers):
            mine = self.dataset_numbers == number
            groups[mine] = np.searchsorted(reader.first_rows, self.row_numbers[mine], "right")
        is_first = np.ones(len(self), bool)
        is_first[1:] = (groups[1:] != groups[:-1]) | (
            self.dataset_numbers[1:] != self.dataset_numbers[:-1]
        )
        ends = np.append(np.flatnonzero(is_first)[1:], len(self))
        runs = np.diff(ends, prepend=0).tolist() if len(self) else []
        return [min(most, run - start) for run in runs for start in range(0, run, most)]

    def take(self, numbers: NDArray[np.int64]) -> pa.Table:
        """Return the kept images with these numbers, in the order given."""
        found: dict[str, pa.ChunkedArray] = {}
        if self._image_columns:
            datasets, rows = self.dataset_numbers[numbers], self.row_numbers[numbers]
            images = _gathered(self._readers, datasets, rows)
            found |= {name: images[name] for name in self._image_columns}
        if "captions" in self._columns:
            tables = np.searchsorted(self._ends, numbers, side="right")
            starts = np.concatenate([[0], self._ends])[tables]
            found |= {"captions": _gathered(self._captions, tables, numbers - starts)["captions"]}
        return pa.table({name: found[name] for name in self._columns})


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
