"""Some examples of a split with what a network predicted for them, for a page."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from orchestration import Dataset
from pipelines.finetune.labels import text_columns
from pipelines.finetune.task import Task
from pipelines.readers.rows import RowReader
from pipelines.report.contact_sheets import data_uri
from pipelines.report.detected import object_uris
from pipelines.report.segmented import label_map_uris

NUM_SHOWN: Final = 8
"Right examples of a split, and as many wrong ones."
_LONGEST_SIDE: Final = 128
_LONGEST_TEXT: Final = 300
_MOST_LABELS: Final = 5


@dataclass(frozen=True)
class Answer:
    """A predicted label."""

    label: str
    score: float


@dataclass(frozen=True)
class Shown:
    """One example on the page; its texts are untrusted."""

    id: str
    images: Sequence[str]
    "Data URIs."
    texts: Sequence[str]
    labels: str
    "The labels as annotated, each with how often it was given; empty if there are none."
    answers: Sequence[Answer]
    "Predicted labels, best first."


@dataclass(frozen=True)
class Predicted:
    """Chosen examples of a split, by a title such as ``right``."""

    groups: dict[str, list[Shown]]
    has_images: bool

    def __len__(self) -> int:
        """Return the number of examples."""
        return sum(map(len, self.groups.values()))


def predicted(task: Task, predictions: Dataset, examples: Dataset) -> Predicted:
    """Choose examples of a split.

    Args:
        task: judges which predictions are right.
        predictions: ``predict/<split>``.
        examples: ``prepare/<split>``.
    """
    texts = text_columns(examples, task).combine_chunks()
    found = predictions.read(columns=["labels", "scores"]).combine_chunks()
    groups: dict[str, list[int]] = {"right": [], "wrong": [], "predicted": []}
    for row in by_hash(texts["example_id"].to_pylist()):
        labels, given = found["labels"][row].as_py(), texts["labels"][row].as_py()
        is_right = task.is_right(labels[0], given) if labels and given else None
        title = "predicted" if is_right is None else "right" if is_right else "wrong"
        groups[title] = [*groups[title], row][:NUM_SHOWN]
        if all(len(groups[title]) == NUM_SHOWN for title in ("right", "wrong")):
            break
    if groups["right"] or groups["wrong"]:
        del groups["predicted"]  # of the few examples without a label in a split with labels
    chosen = [row for rows in groups.values() for row in rows]
    if "objects" in task.columns:
        images = object_uris(examples, predictions, chosen)
    elif "label_map" in task.columns:
        images = label_map_uris(examples, predictions, chosen)
    else:
        images = _images(examples, chosen, task.num_images)
    return Predicted(
        {
            title: [_shown(texts, found, row, images.get(row, [])) for row in rows]
            for title, rows in groups.items()
            if rows
        },
        task.num_images > 0,
    )


def by_hash(ids: Sequence[str]) -> list[int]:
    """Return the row numbers in an order that depends on nothing but the ids."""
    return sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())


def image_uris(examples: Dataset, rows: Iterable[int]) -> dict[int, list[str]]:
    """Return the thumbnails of examples by row number."""
    numbers = np.array(sorted(set(rows)), np.int64)
    if not len(numbers):
        return {}
    # One cached row group is enough: the rows are sorted.
    table = RowReader(examples, ["example_id", "images"], keep=1).take(numbers)
    return {
        int(number): [data_uri(jpeg, row["example_id"], _LONGEST_SIDE) for jpeg in row["images"]]
        for number, row in zip(numbers, table.to_pylist(), strict=True)
    }


def clipped(text: str) -> str:
    """Return a text in the length that the page shows."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _images(examples: Dataset, rows: Sequence[int], num_images: int) -> dict[int, list[str]]:
    return image_uris(examples, rows) if num_images else {}


def _shown(texts: pa.Table, found: pa.Table, row: int, images: Sequence[str]) -> Shown:
    example: dict[str, Any] = texts.slice(row, 1).to_pylist()[0]
    answer: dict[str, Any] = found.slice(row, 1).to_pylist()[0]
    pairs = zip(answer["labels"], answer["scores"], strict=True)
    return Shown(
        example["example_id"],
        images,
        [clipped(text) for text in example["texts"]],
        _label_words(example["labels"]),
        [Answer(clipped(label), score) for label, score in list(pairs)[:_MOST_LABELS]],
    )


def _label_words(labels: Sequence[str]) -> str:
    counts = Counter(labels).most_common()
    words = [clipped(label) + (f" ×{n}" if n > 1 else "") for label, n in counts[:_MOST_LABELS]]
    return ", ".join(words) + (", …" if len(counts) > _MOST_LABELS else "")
