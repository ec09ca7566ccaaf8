"""Kept rows of each source that the token stages will hold out from training.

The split is a function of a row alone, so it is counted before any tokenizer is trained.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from orchestration import Dataset
from orchestration.params import StageParams
from pipelines.readers.kept_images import KeptImages
from pipelines.tokens.held_out import COLUMNS, HeldOutBy, Split, is_held_out

_READ_ROWS: Final = 65_536


class Splits(StageParams):
    """How the token datasets are split; see the sections of the tokens."""

    seed: int = 0
    "Seed of the recipe."
    images: float = 0.0
    "Expected fraction of images that is held out."
    pairs: float = 0.0
    "Expected fraction of pairs that is held out."
    pairs_by: HeldOutBy = "image"
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
        kept = KeptImages([curated.table(kind)], list(images.values()), COLUMNS)
        for start in range(0, len(kept), _READ_ROWS):
            numbers = np.arange(start, min(start + _READ_ROWS, len(kept)))
            sources = kept.dataset_numbers[numbers]
            out = split.held_out(kept.take(numbers), np.isin(sources, whole_numbers))
            rows.update(sources.tolist())
            held_out.update(sources[out].tolist())
    return (
        *(HeldOutCount(name, rows[i], held_out[i]) for i, name in enumerate(images)),
        *(
            HeldOutCount(name, dataset.num_rows, _documents(dataset, name in whole, splits))
            for name, dataset in documents.items()
        ),
    )


def _documents(dataset: Dataset, whole: bool, splits: Splits) -> int:
    if whole:
        return dataset.num_rows
    return sum(
        is_held_out("document", name, splits.texts, splits.seed)
        for start in range(0, dataset.num_rows, _READ_ROWS)
        for name in dataset.read(start, start + _READ_ROWS, ["doc_id"])["doc_id"].to_pylist()
    )
