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
        self, kept: Sequence[Dataset], images: Sequence[Dataset], columns: Sequence[str]
    ) -> None:
        """Open the images.

        Args:
            kept: tables of curation, numbered one after the other; their columns ``dataset`` and
                ``row`` point into ``images``.
            images: the images datasets that curation read, in its order.
            columns: names of the columns of ``images`` to read.
        """
        locations = pa.concat_tables([table.read(columns=["dataset", "row"]) for table in kept])
        self.dataset_numbers = locations["dataset"].to_numpy()
        self.row_numbers = locations["row"].to_numpy()
        self._readers = [RowReader(dataset, columns) for dataset in images]

    def __len__(self) -> int:
        return len(self.row_numbers)

    def take(self, numbers: NDArray[np.int64]) -> pa.Table:
        """Return the kept images with these numbers, in the order given."""
        datasets, rows = self.dataset_numbers[numbers], self.row_numbers[numbers]
        tables, order = [], []
        for number in np.unique(datasets):
            chosen = np.flatnonzero(datasets == number)
            tables.append(self._readers[number].take(rows[chosen]))
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
