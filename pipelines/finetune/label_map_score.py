"""The score of predicted label maps: metrics, chance, and tables of the classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dataprep.tasks.label_classes import IGNORED
from dataprep.tasks.label_maps import LabelMap
from dataprep.tasks.stored_label_maps import restored
from model.metrics.segmentation import METRICS, SegmentationScore, segmentation_score
from pipelines.finetune.csv_tables import csv_of

CLASSES: Final = "classes.csv"
CONFUSION: Final = "confusion.csv"
_ROWS: Final = 64
"Examples whose label maps are decoded at a time."


def score_of(predictions: pa.Table, examples: pa.Table) -> tuple[SegmentationScore, list[str]]:
    """Return the score of a split and the names of its classes, in the order of ``confusion``.

    Args:
        predictions: rows of ``dataprep.schemas.PREDICTIONS``.
        examples: the same examples, with ``labels`` and ``label_map``; without a map they do not
            count.

    Raises:
        ValueError: there are more classes than a label map can hold.
    """
    names = sorted(
        {
            name
            for table in (predictions, examples)
            for name in pc.unique(pc.list_flatten(table["labels"])).to_pylist()
        }
    )
    if len(names) > IGNORED:
        raise ValueError(f"{len(names)} classes in label maps; a split may have {IGNORED}")
    numbers = {name: i for i, name in enumerate(names)}
    return segmentation_score(_pairs(predictions, examples, numbers), names, IGNORED), names


def chance_of(score: SegmentationScore) -> dict[str, float]:
    """Return the metrics of the most frequent class, predicted everywhere."""
    pixels = score.confusion.sum(axis=1)
    number = int((pixels > 0).sum())
    fraction = float(pixels.max() / pixels.sum())
    return dict(zip(METRICS, (fraction / number, fraction, 1 / number), strict=True))


def score_tables(score: SegmentationScore, names: Sequence[str]) -> dict[str, bytes]:
    """Return the IoU of each class, and the pixels by true class (rows) and predicted one."""
    pixels, right = score.confusion.sum(axis=1), score.confusion.diagonal()
    classes = [
        [name, score.by_class[name], right[i] / pixels[i] if pixels[i] else "", pixels[i]]
        for i, name in enumerate(names)
        if name in score.by_class
    ]
    confusion = [[name, *row] for name, row in zip(names, score.confusion.tolist(), strict=True)]
    return {
        CLASSES: csv_of([["class", "IoU", "accuracy", "pixels"], *classes]),
        CONFUSION: csv_of([["true class", *names], *confusion]),
    }


def _pairs(
    predictions: pa.Table, examples: pa.Table, numbers: Mapping[str, int]
) -> Iterator[tuple[LabelMap, LabelMap]]:
    """Yield the predicted and the true label map of each example that has one."""
    columns = ["labels", "label_map"]
    for start in range(0, examples.num_rows, _ROWS):
        some = (t.select(columns).slice(start, _ROWS).to_pylist() for t in (predictions, examples))
        for found, true in zip(*some, strict=True):
            if true["label_map"] is not None:
                yield (
                    restored(found["label_map"], found["labels"], numbers),
                    restored(true["label_map"], true["labels"], numbers),
                )
