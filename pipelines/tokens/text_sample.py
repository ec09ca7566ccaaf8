"""A seeded sample of lines to learn a vocabulary from, bounded whatever the corpus holds."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.training import randomness
from orchestration import Dataset
from pipelines.readers.rows import KeptImages
from tokenizer.text import training_lines

_READ_ROWS: Final = 4096


class Sample:
    """The ``limit`` lines with the smallest keys, of any number that are offered."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lines: list[str] = []
        self._sources: list[int] = []
        self._keys: list[float] = []
        self._below = 2.0
        "A key from here on is not among the smallest any more."

    def offer(self, lines: Sequence[str], keys: NDArray[np.float64], source: int) -> None:
        """Take what is small enough; let go of what is not any more."""
        for place in np.flatnonzero(keys < self._below).tolist():
            self._lines.append(lines[place])
            self._sources.append(source)
            self._keys.append(float(keys[place]))
        if len(self._lines) > 2 * self.limit:
            self._shrink()

    def _shrink(self) -> None:
        if len(self._lines) <= self.limit:
            return
        keys = np.array(self._keys)
        self._below = float(np.partition(keys, self.limit)[self.limit])
        kept = np.flatnonzero(keys < self._below)
        self._lines = [self._lines[i] for i in kept]
        self._sources = [self._sources[i] for i in kept]
        self._keys = keys[kept].tolist()

    def lines(self) -> list[tuple[int, str]]:
        """Return (source, line) of the sample in the order of the corpus."""
        self._shrink()
        return list(zip(self._sources, self._lines, strict=True))


def sample_documents(datasets: Sequence[Dataset], limit: int, seed: int) -> list[tuple[int, str]]:
    """Return (dataset, line) of ``limit`` lines of the documents."""
    sample = Sample(limit)
    for number, dataset in enumerate(datasets):
        for rows in _ranges(dataset.num_rows):
            texts = dataset.read(int(rows[0]), int(rows[-1]) + 1, ["text"])["text"].to_pylist()
            _offer(sample, [training_lines(text) for text in texts], (seed, 1, number), rows)
    return sample.lines()


def sample_captions(
    curated: Dataset, images: Sequence[Dataset], limit: int, seed: int
) -> list[tuple[int, str]]:
    """Return (dataset, caption) of ``limit`` captions of curated pairs."""
    sample = Sample(limit)
    pairs = KeptImages([curated.table("pairs")], images, ["captions"])
    for places in _ranges(len(pairs)):
        captions = pairs.take(places)["captions"].to_pylist()
        for number in np.unique(pairs.dataset[places]):
            mine = np.flatnonzero(pairs.dataset[places] == number)
            _offer(sample, [captions[i] for i in mine], (seed, 2, int(number)), places[mine])
    return sample.lines()


def _ranges(total: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, total, _READ_ROWS):
        yield np.arange(start, min(start + _READ_ROWS, total))


def _offer(
    sample: Sample,
    texts: Sequence[Sequence[str]],
    key: tuple[int, int, int],
    rows: NDArray[np.int64],
) -> None:
    """Offer the lines of rows; a line's key says which line of which row it is.

    Args:
        sample: takes them.
        texts: lines of each row.
        key: (seed, kind, source).
        rows: number of each row.
    """
    counts = np.array([len(lines) for lines in texts], np.int64)
    row = np.repeat(rows, counts)
    line = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = randomness.uniform(*key, row, line)
    sample.offer([line for lines in texts for line in lines], keys, key[-1])
