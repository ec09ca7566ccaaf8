"""A seeded sample of lines to train a vocabulary on, drawn in two rounds of slices.

The sample is the given number of lines with the smallest random keys. A key is a function of seed,
dataset, row and line number, so the sample does not depend on slices or workers.

The first round counts the lines of each slice. With their total, the second round keeps the lines
whose key is below a threshold that slightly more lines than needed pass: it lies eight standard
deviations above the expected number, and if too few lines pass after all, the round is repeated
with twice the threshold. So the slices together write hardly more lines than the sample has, and
the price is that the texts are read twice. The sample is cut to its exact size by whoever reads it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.training import randomness
from orchestration import Context, Dataset, Output, Slice
from orchestration.slices import group_slices, range_slices, read_groups
from orchestration.storage.store import Store
from pipelines.curate.exchange import FOLDER, ROW_GROUP_ROWS
from tokenizer.text import training_lines

Kind = Literal["documents", "captions"]
SLICE_BYTES: Final = 1 << 26
"Largest size of the documents of a slice, in bytes."
SLICE_PAIRS: Final = 1 << 18
"Largest number of pairs of a slice."
_READ_PAIRS: Final = 4096
_PURPOSES: Final[dict[Kind, int]] = {"documents": 1, "captions": 2}
"Element of the key that tells documents from captions."
COUNTERS: Final[dict[Kind, tuple[str, ...]]] = {
    "documents": ("documents", "lines", "words", "characters"),
    "captions": ("lines", "words", "characters"),
}
"What is counted of the whole corpus; lines are those that :func:`training_lines` cuts."
_TABLE: Final = f"{FOLDER}/lines"
_DEVIATIONS: Final = 8


@dataclass(frozen=True)
class Corpus:
    """The texts that lines are drawn from."""

    documents: Sequence[Dataset]
    pairs: Dataset
    "Curated pairs, with the columns ``dataset`` and ``captions``."
    seed: int

    def slices(self, kind: Kind, name: str) -> list[Slice]:
        """Return the slices of all texts of a kind; their ids begin with ``name``."""
        if kind == "captions":
            found = [(0, slice_) for slice_ in range_slices(self.pairs.num_rows, SLICE_PAIRS)]
        else:
            found = [
                (number, slice_)
                for number, dataset in enumerate(self.documents)
                for slice_ in group_slices(dataset, "text", SLICE_BYTES)
            ]
        return [
            Slice(
                f"{name}-{kind}-{number:03d}-{slice_.id}",
                {"kind": kind, "dataset": number, **slice_.payload},
                slice_.num_rows,
            )
            for number, slice_ in found
        ]

    def read(self, slice_: Slice) -> "Iterator[Rows]":
        """Yield the texts of a slice, some megabytes at a time, in the order of their rows."""
        if slice_.payload["kind"] == "documents":
            number, row = slice_.payload["dataset"], slice_.payload["start"]
            for table in read_groups(self.documents[number], slice_, ["text"]):
                rows = np.arange(row, row + table.num_rows)
                texts = table["text"].to_pylist()
                yield Rows(
                    number, rows, [[text] for text in texts], list(map(training_lines, texts))
                )
                row += table.num_rows
            return
        stop = slice_.payload["stop"]
        for start in range(slice_.payload["start"], stop, _READ_PAIRS):
            end = min(start + _READ_PAIRS, stop)
            table = self.pairs.read(start, end, ["dataset", "captions"])
            datasets, captions = table["dataset"].to_numpy(), table["captions"].to_pylist()
            for number in np.unique(datasets).tolist():
                chosen = np.flatnonzero(datasets == number)
                mine = [captions[i] for i in chosen]
                yield Rows(number, start + chosen, mine, mine)


@dataclass(frozen=True)
class Rows:
    """Some rows of one dataset of documents or images."""

    dataset: int
    "Number of the dataset."
    rows: NDArray[np.int64]
    "Row numbers: of documents in their dataset, of pairs among all curated ones."
    texts: Sequence[Sequence[str]]
    "The texts of each row."
    lines: Sequence[Sequence[str]]
    "The lines of each row that the vocabulary may be trained on."

    def keys(self, kind: Kind, seed: int) -> NDArray[np.float64]:
        """Return the random key of each line, from 0 to 1."""
        counts = np.array([len(lines) for lines in self.lines], np.int64)
        row = np.repeat(self.rows, counts)
        line = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        return randomness.uniform(seed, _PURPOSES[kind], self.dataset, row, line)


def count_slice(corpus: Corpus, slice_: Slice) -> Output:
    """Count the texts of a slice; the counters are ``<one of COUNTERS>/<dataset>``."""
    counters: Counter[str] = Counter()
    for rows in corpus.read(slice_):
        texts = [text for some in rows.texts for text in some]
        counters[f"documents/{rows.dataset}"] += len(rows.rows)
        counters[f"lines/{rows.dataset}"] += sum(map(len, rows.lines))
        counters[f"words/{rows.dataset}"] += sum(len(text.split()) for text in texts)
        counters[f"characters/{rows.dataset}"] += sum(
            len(text) - text.count("\n") for text in texts
        )
    return Output(slice_.payload["stop"] - slice_.payload["start"], {}, counters)


def draw_slice(corpus: Corpus, threshold: float, slice_: Slice) -> Iterator[Output]:
    """Write the lines of a slice whose key is below a threshold."""
    for rows in corpus.read(slice_):
        keys = rows.keys(slice_.payload["kind"], corpus.seed)
        lines = [line for some in rows.lines for line in some]
        chosen = np.flatnonzero(keys < threshold)
        table = pa.table({
            "dataset": pa.array(np.full(len(chosen), rows.dataset, np.int32)),
            "key": pa.array(keys[chosen]),
            "line": pa.array([lines[i] for i in chosen.tolist()], pa.string()),
        })  # fmt: skip
        yield Output(len(rows.rows), {_TABLE: table})


def threshold_for(limit: int, total: int) -> float:
    """Return a key below which almost surely more than ``limit`` of ``total`` lines lie."""
    wanted = limit + 1 + _DEVIATIONS * (math.sqrt(limit + 1) + _DEVIATIONS)
    return wanted / total if wanted < total else 1.0


@dataclass(frozen=True)
class Sample:
    """Drawn lines; iterating yields (dataset number, line) of the sample in corpus order."""

    folder: Store
    paths: tuple[str, ...]
    "Files of drawn lines, in corpus order."
    limit: int
    "Largest number of lines of the sample."

    def __iter__(self) -> Iterator[tuple[int, str]]:
        below = self._below()
        for path in self.paths:
            file = pq.ParquetFile(self.folder.open(path))
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                table = table.filter(pa.array(table["key"].to_numpy() < below))
                yield from zip(table["dataset"].to_pylist(), table["line"].to_pylist(), strict=True)

    def _below(self) -> float:
        """Return the key from which on lines are not in the sample."""
        keys = [np.empty(0)]
        for path in self.paths:
            keys.append(pq.read_table(self.folder.open(path), columns=["key"])["key"].to_numpy())
        all_keys = np.concatenate(keys)
        if len(all_keys) <= self.limit:
            return math.inf
        return float(np.partition(all_keys, self.limit)[self.limit])


def count_texts(context: Context, corpus: Corpus) -> dict[Kind, Counter[str]]:
    """Run the first round; return the counters of :func:`count_slice` for each kind."""
    slices = {kind: corpus.slices(kind, "count") for kind in _PURPOSES}
    context.map_slices([s for some in slices.values() for s in some], partial(count_slice, corpus))
    return {
        kind: sum((Counter(part.counters) for part in context.parts_of(some)), Counter())
        for kind, some in slices.items()
    }


def draw(context: Context, corpus: Corpus, kind: Kind, limit: int, total: int) -> Sample:
    """Run the second round for one kind of text.

    Args:
        context: context of the stage.
        corpus: the texts.
        kind: documents or captions.
        limit: number of lines of the sample.
        total: number of lines of this kind.
    """
    threshold = threshold_for(limit, total)
    attempt = 0
    while limit:
        slices = corpus.slices(kind, f"lines-{attempt}")
        context.map_slices(
            slices, partial(draw_slice, corpus, threshold), row_group_rows=ROW_GROUP_ROWS
        )
        tables = [part.tables[_TABLE] for part in context.parts_of(slices)]
        drawn = sum(table.num_rows for table in tables)
        if drawn > limit or drawn == total:
            return Sample(context.folder, tuple(t.path for t in tables if t.num_rows), limit)
        threshold = min(2 * threshold, 1.0)
        attempt += 1
    return Sample(context.folder, (), 0)
