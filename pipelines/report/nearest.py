"""Retrieval for a page: captions with their nearest images, images with their nearest captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestration import Dataset
from pipelines.finetune.task import Task
from pipelines.report.predicted import by_hash, clipped, image_uris

NUM_QUERIES: Final = 6
"Captions of a split, and as many images."
NUM_NEAREST: Final = 5


@dataclass(frozen=True)
class Found:
    """One candidate for a query."""

    content: str
    "Data URI of an image, or a caption; a caption is untrusted text."
    score: float
    is_own: bool
    "Whether it belongs to the query."


@dataclass(frozen=True)
class Query:
    """A caption or an image, and what is nearest to it."""

    content: str
    rank: int
    "Rank of the first candidate that belongs to it, from 1."
    found: Sequence[Found]


@dataclass(frozen=True)
class Nearest:
    """Queries of a split in both directions."""

    captions: Sequence[Query]
    "Captions, whose candidates are images."
    images: Sequence[Query]
    "Images, whose candidates are captions."

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.captions) + len(self.images)


@dataclass(frozen=True)
class _Features:
    images: NDArray[np.float32]
    "(N, D), one for each row."
    texts: NDArray[np.float32]
    "(M, D), one for each text of each row."
    row_of_text: NDArray[np.int64]


def nearest(predictions: Dataset, examples: Dataset) -> Nearest | None:
    """Choose queries of a split and rank their candidates; None if there are no features.

    Args:
        predictions: ``predict/<split>``.
        examples: ``prepare/<split>``.
    """
    features = _features(predictions.read(columns=["features"]))
    if features is None:
        return None
    table = examples.read(columns=Task.columns)
    texts = pa.compute.list_flatten(table["texts"].combine_chunks()).to_pylist()
    rows = by_hash(table["example_id"].to_pylist())[:NUM_QUERIES]
    first_text = np.searchsorted(features.row_of_text, np.arange(len(features.images)))

    to_images = {
        int(first_text[row]): _ranked(
            features.images @ features.texts[first_text[row]], np.arange(len(features.images)), row
        )
        for row in rows
    }
    to_texts = {
        row: _ranked(features.texts @ features.images[row], features.row_of_text, row)
        for row in rows
    }
    wanted = {number for _, found in to_images.values() for number, _, _ in found}
    thumbnails = {row: uris[0] for row, uris in image_uris(examples, {*wanted, *rows}).items()}
    return Nearest(
        [
            Query(clipped(texts[text]), rank, [Found(thumbnails[n], s, own) for n, s, own in found])
            for text, (rank, found) in to_images.items()
        ],
        [
            Query(thumbnails[row], rank, [Found(clipped(texts[n]), s, own) for n, s, own in found])
            for row, (rank, found) in to_texts.items()
        ],
    )


def _ranked(
    scores: NDArray[np.float32], rows: NDArray[np.int64], own: int
) -> tuple[int, list[tuple[int, float, bool]]]:
    """Return the rank of the first own candidate, and the nearest (number, score, is own).

    Args:
        scores: (candidates,); of equal ones the first candidate is nearer.
        rows: (candidates,), row of each candidate.
        own: row of the query.
    """
    order = np.argsort(-scores, kind="stable")
    rank = int(np.flatnonzero(rows[order] == own)[0]) + 1
    found = [(int(n), float(scores[n]), bool(rows[n] == own)) for n in order[:NUM_NEAREST]]
    return rank, found


def _features(table: pa.Table) -> _Features | None:
    per_row = table["features"].combine_chunks()
    counts = per_row.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    if not counts.sum():
        return None
    values = per_row.flatten().flatten().to_numpy().reshape(counts.sum(), -1)
    is_image = np.zeros(len(values), bool)
    is_image[np.cumsum(counts) - counts] = True  # the first feature of each row
    rows = np.repeat(np.arange(len(counts)), counts)
    return _Features(values[is_image], values[~is_image], rows[~is_image])
