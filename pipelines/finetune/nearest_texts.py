"""A baseline that learns nothing: the text of the training image that looks most alike.

Images are compared by their pixels on a small grid. Of a large training split, evenly spaced row
groups are compared. A network whose captions are no better than these repeats what it was trained
on.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.schemas import PREDICTIONS
from orchestration import Dataset
from orchestration.dataset import RowGroup
from pipelines.finetune.views import EvaluationViews

GRID: Final = 16
"Cells of the grid in each direction."
MOST_IMAGES: Final = 10_000
"Training images that are compared, about."
_COLUMNS: Final = ("example_id", "images", "texts")
_CHUNK: Final = 256
"Examples that are compared at once."


def nearest_predictions(train: Dataset, examples: Dataset) -> pa.Table:
    """Return rows of ``PREDICTIONS``: the first text of the nearest training image that has some.

    Args:
        train: ``prepare/train``.
        examples: ``prepare/<split>``; one image each.

    Raises:
        ValueError: no training image that is compared has a text.
    """
    known, texts = _compared(train)
    rows: list[dict[str, object]] = []
    for group in examples.row_groups():
        table = examples.read_group(group, _COLUMNS)
        found = _nearest(_pixels(table), known)
        for name, i in zip(table["example_id"].to_pylist(), found.tolist(), strict=True):
            rows.append({"row": len(rows), "example_id": name, "labels": [texts[i]]})
    empty: dict[str, object] = {"scores": [], "features": []}
    return pa.Table.from_pylist([row | empty for row in rows], PREDICTIONS)


def _compared(train: Dataset) -> tuple[NDArray[np.float32], list[str]]:
    """Return the pixels (N, D) of training images with texts, and the first text of each."""
    pixels, texts = [], list[str]()
    for group in _spaced(train.row_groups()):
        table = train.read_group(group, _COLUMNS)
        used = [i for i, some in enumerate(table["texts"].to_pylist()) if some]
        if used:
            table = table.take(pa.array(used))
            pixels.append(_pixels(table))
            texts += [some[0] for some in table["texts"].to_pylist()]
    if not texts:
        raise ValueError("no image of the split train has a text")
    return np.concatenate(pixels), texts


def _spaced(groups: Sequence[RowGroup]) -> list[RowGroup]:
    """Return all row groups, or evenly spaced ones with about ``MOST_IMAGES`` rows."""
    total = sum(group.num_rows for group in groups)
    number = min(len(groups), max(len(groups) * MOST_IMAGES // max(total, 1), 1))
    return [groups[i * len(groups) // number] for i in range(number)]


def _pixels(table: pa.Table) -> NDArray[np.float32]:
    """Return the images of rows on the grid, (N, D)."""
    views = EvaluationViews(GRID)
    found = views(table["images"].to_pylist(), table["example_id"].to_pylist())
    return found.reshape(len(found), -1).astype(np.float32)


def _nearest(images: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the first row of ``known`` (N, D) with the smallest distance, for each image."""
    found = []
    for i in range(0, len(images), _CHUNK):
        some = images[i : i + _CHUNK]
        found.append(((known**2).sum(1) - 2 * some @ known.T).argmin(1))
    return np.concatenate(found) if found else np.empty(0, np.int64)
