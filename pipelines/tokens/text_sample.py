"""A seeded sample of lines to train a vocabulary on; its size does not depend on the corpus."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.training import randomness
from orchestration import Dataset
from pipelines.readers.kept_images import KeptImages
from tokenizer.text import training_lines

_READ_ROWS: Final = 4096


class Sample:
    """The ``limit`` lines with the smallest random keys among all lines offered."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lines: list[str] = []
        self._sources: list[int] = []
        self._keys: list[float] = []
        self._below = 2.0
        "A line with this key or a larger one is not in the sample."

    def offer(self, lines: Sequence[str], keys: NDArray[np.float64], source: int) -> None:
        """Add the lines whose keys are small enough, and remove those that no longer are."""
        for index in np.flatnonzero(keys < self._below).tolist():
            self._lines.append(lines[index])
            self._sources.append(source)
            self._keys.append(float(keys[index]))
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
        """Return (source number, line) of the sample in the order of the corpus."""
        self._shrink()
        return list(zip(self._sources, self._lines, strict=True))


def sample_documents(datasets: Sequence[Dataset], limit: int, seed: int) -> list[tuple[int, str]]:
    """Return (dataset number, line) of at most ``limit`` lines of the documents."""
    sample = Sample(limit)
    for number, dataset in enumerate(datasets):
        for rows in _ranges(dataset.num_rows):
            texts = dataset.read(int(rows[0]), int(rows[-1]) + 1, ["text"])["text"].to_pylist()
            _offer(sample, [training_lines(text) for text in texts], (seed, 1, number), rows)
    return sample.lines()


def sample_captions(
    curated: Dataset, images: Sequence[Dataset], limit: int, seed: int
) -> list[tuple[int, str]]:
    """Return (dataset number, caption) of at most ``limit`` captions of curated pairs."""
    sample = Sample(limit)
    pairs = KeptImages([curated.table("pairs")], images, ["captions"])
    for numbers in _ranges(len(pairs)):
        captions = pairs.take(numbers)["captions"].to_pylist()
        datasets = pairs.locations(numbers)[0]
        for dataset in np.unique(datasets):
            chosen = np.flatnonzero(datasets == dataset)
            texts = [captions[i] for i in chosen]
            _offer(sample, texts, (seed, 2, int(dataset)), numbers[chosen])
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
    """Offer the lines of some rows, with random keys that depend on row and line number alone.

    Args:
        sample: the sample to offer them to.
        texts: lines of each row.
        key: (seed, purpose of the random numbers, source number).
        rows: row number of each row.
    """
    counts = np.array([len(lines) for lines in texts], np.int64)
    row = np.repeat(rows, counts)
    line = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = randomness.uniform(*key, row, line)
    sample.offer([line for lines in texts for line in lines], keys, key[-1])
