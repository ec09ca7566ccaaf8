"""The classes of label maps or of objects with what a score says of each of them, for a page."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from orchestration import Dataset
from pipelines.finetune.label_map_score import CLASSES, CONFUSION
from pipelines.finetune.object_score import CLASSES as OBJECT_CLASSES
from pipelines.finetune.score import split_file

_MOST: Final = 3
"Other classes that are named for each class."
_LEAST: Final = 0.01
"Part of a class's pixels from which on another class is named."


@dataclass(frozen=True)
class TakenFor:
    """A class for which pixels of another one are taken."""

    name: str
    part: float


@dataclass(frozen=True)
class ClassRow:
    """One class."""

    name: str
    iou: float
    accuracy: float | None
    "None of a class that no true map has."
    part: float
    "Of all labeled pixels."
    taken_for: Sequence[TakenFor]
    "Other classes, most frequent first."


def class_tables(score: Dataset, splits: Sequence[str]) -> dict[str, list[ClassRow]]:
    """Return the classes of each split for which ``score`` has such tables, best IoU first."""
    there = {file.path for file in score.manifest.files}
    return {
        split: _rows(*(_read(score, split_file(name, split)) for name in (CLASSES, CONFUSION)))
        for split in splits
        if {split_file(CLASSES, split), split_file(CONFUSION, split)} <= there
    }


def object_class_tables(score: Dataset, splits: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return the classes of objects of each split for which ``score`` has them: header, best AP.

    A row has the class, its AP of boxes and perhaps of masks, and its number of objects.
    """
    there = {file.path for file in score.manifest.files}
    found = {}
    for split in splits:
        if split_file(OBJECT_CLASSES, split) not in there or split_file(CONFUSION, split) in there:
            continue
        header, *rows = _read(score, split_file(OBJECT_CLASSES, split))
        rows.sort(key=lambda row: -float(row[1] or -1))
        shown = [
            [name, *(f"{float(ap):.4f}" if ap else "" for ap in aps), count]
            for name, *aps, count in rows
        ]
        found[split] = [[name.replace("_", " ") for name in header], *shown]
    return found


def _rows(classes: list[list[str]], confusion: list[list[str]]) -> list[ClassRow]:
    names = confusion[0][1:]
    pixels = {row[0]: np.array(row[1:], np.int64) for row in confusion[1:]}
    total = sum(int(each.sum()) for each in pixels.values())
    rows = [
        ClassRow(
            name,
            float(iou),
            float(accuracy) if accuracy else None,
            int(count) / total,
            _taken_for(name, names, pixels[name]),
        )
        for name, iou, accuracy, count in classes[1:]
    ]
    return sorted(rows, key=lambda row: -row.iou)


def _taken_for(name: str, names: Sequence[str], pixels: np.ndarray) -> list[TakenFor]:
    parts = pixels / max(int(pixels.sum()), 1)
    order = [i for i in np.argsort(-parts, kind="stable").tolist() if names[i] != name]
    return [TakenFor(names[i], float(parts[i])) for i in order[:_MOST] if parts[i] >= _LEAST]


def _read(score: Dataset, name: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(score.fetch(name).read_text())))
