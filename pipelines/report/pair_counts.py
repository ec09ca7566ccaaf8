"""Pairs and images of each source after curation: each caption of an image makes a pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from orchestration import Dataset


@dataclass(frozen=True)
class PairCount:
    """Pairs of one source, held-out ones included."""

    source: str
    images: int
    pairs: int


def count_pairs(curated: Dataset, names: Sequence[str]) -> tuple[PairCount, ...]:
    """Count the captions that curation kept for the images of each source.

    Args:
        curated: dataset of curation.
        names: names of the sources, in the order of the datasets that curation read.

    Returns:
        The counts of the sources that have images with captions.
    """
    images, pairs = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    kept = curated.table("pairs")
    for group in kept.row_groups():
        rows = kept.read_group(group, ["dataset", "captions"])
        numbers = rows["dataset"].to_numpy()
        lengths = pc.list_value_length(rows["captions"]).to_numpy()
        images += np.bincount(numbers, minlength=len(names))
        pairs += np.bincount(numbers, lengths, minlength=len(names)).astype(np.int64)
    return tuple(
        PairCount(name, int(images[i]), int(pairs[i])) for i, name in enumerate(names) if images[i]
    )
