"""Kept rows of each source that the token stages will hold out from training.

The split is a function of a row alone, so it is counted before any tokenizer is trained.
"""

from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestration import Dataset
from orchestration.params import StageParams
from pipelines.readers.kept_images import KeptImages
from pipelines.readers.prefetch import prefetch
from pipelines.tokens.held_out import COLUMNS, HeldOutBy, Split, is_held_out

_READ_ROWS: Final = 65_536
_READERS: Final = 16
"Files that are read at once."


class Splits(StageParams):
    """How the token datasets are split; see the sections of the tokens."""

    seed: int = 0
    "Seed of the recipe."
    images: float = 0.0
    "Expected fraction of images that is held out."
    pairs: float = 0.0
    "Expected fraction of pairs that is held out."
    pairs_by: HeldOutBy = "caption"
    "What pairs share that are held out together."
    texts: float = 0.0
    "Expected fraction of documents that is held out."


@dataclass(frozen=True)
class HeldOutCount:
    """Held-out rows of one source."""

    source: str
    rows: int
    "Rows that curation kept, or documents."
    held_out: int


def count_held_out(
    curated: Dataset,
    images: Mapping[str, Dataset],
    documents: Mapping[str, Dataset],
    whole: Collection[str],
    splits: Splits,
) -> tuple[HeldOutCount, ...]:
    """Count the held-out rows of each source.

    Args:
        curated: dataset of curation.
        images: images datasets that curation read, by source, in its order.
        documents: datasets of documents by source.
        whole: names of the sources that are held out as a whole.
        splits: how the token datasets are split.
    """
    rows: Counter[int] = Counter()
    held_out: Counter[int] = Counter()
    whole_numbers = [number for number, name in enumerate(images) if name in whole]
    for kind, split in (
        ("pairs", Split(splits.pairs, splits.seed, splits.pairs_by)),
        ("images", Split(splits.images, splits.seed)),
    ):
        with closing(_kept_rows(curated.table(kind), list(images.values()))) as kept:
            for sources, table in kept:
                out = split.held_out(table, np.isin(sources, whole_numbers))
                rows.update(sources.tolist())
                held_out.update(sources[out].tolist())
    return (
        *(HeldOutCount(name, rows[i], held_out[i]) for i, name in enumerate(images)),
        *(
            HeldOutCount(name, dataset.num_rows, _documents(dataset, name in whole, splits))
            for name, dataset in documents.items()
        ),
    )


def _kept_rows(
    kept: Dataset, images: Sequence[Dataset]
) -> Generator[tuple[NDArray[np.int64], pa.Table], None, None]:
    """Yield (number of the dataset of each row, columns of the rows) of kept images.

    Only the columns that decide are read, of many files at a time and ahead of the counting: an
    object store answers slowly, but many requests at once.
    """
    chosen = KeptImages([kept], images, ["captions"])
    ends = [np.cumsum([part.num_rows for part in dataset.parts]) for dataset in images]
    columns = [name for name in COLUMNS if name != "captions"]

    def read_file(source: int, rows: NDArray[np.int64]) -> pa.Table:
        table = images[source].read(int(rows[0]), int(rows[-1]) + 1, columns)
        return table.take(pa.array(rows - rows[0]))

    def read(chunk: int) -> tuple[NDArray[np.int64], pa.Table]:
        numbers = np.arange(chunk * _READ_ROWS, min((chunk + 1) * _READ_ROWS, len(chosen)))
        sources, rows = chosen.locations(numbers)
        files = np.empty_like(rows)
        for source in np.unique(sources):
            mine = sources == source
            files[mine] = np.searchsorted(ends[source], rows[mine], "right")
        order = np.lexsort((rows, files, sources))
        changes = np.diff(sources[order]).astype(bool) | np.diff(files[order]).astype(bool)
        runs = np.split(order, np.flatnonzero(changes) + 1)
        tables = threads.map(lambda run: read_file(int(sources[run[0]]), rows[run]), runs)
        table = pa.concat_tables(tables)
        captions = chosen.take(numbers[order])["captions"]
        return sources[order], table.append_column("captions", captions)

    number = -(-len(chosen) // _READ_ROWS)
    with ThreadPoolExecutor(_READERS) as threads, prefetch(read, 0, number) as chunks:
        yield from chunks


def _documents(dataset: Dataset, whole: bool, splits: Splits) -> int:
    if whole:
        return dataset.num_rows
    return sum(
        is_held_out("document", name, splits.texts, splits.seed)
        for start in range(0, dataset.num_rows, _READ_ROWS)
        for name in dataset.read(start, start + _READ_ROWS, ["doc_id"])["doc_id"].to_pylist()
    )
