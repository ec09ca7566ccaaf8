"""The score of detected objects: COCO's metrics of boxes and masks, and a table of the classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

import numpy as np

from dataprep.tasks.run_lengths import text_of_part
from model.metrics.coco import CocoScore, Kind, coco_score
from pipelines.finetune.coco_rows import Truth
from pipelines.finetune.csv_tables import csv_of

CLASSES: Final = "classes.csv"
_KINDS: Final[dict[str, tuple[Kind, str]]] = {
    "box": ("bbox", "bbox"),
    "mask": ("segm", "segmentation"),
}
"What is compared, and the key of a detection that has it."


def scores_of(
    truth: Truth, results: Sequence[Mapping[str, Any]], *, with_masks: bool
) -> dict[str, CocoScore]:
    """Return the score of boxes and, if ``with_masks``, of masks, by ``box`` and ``mask``.

    Args:
        truth: annotations of a split. Among masks, an object without one is neither right nor wrong
            to find, as a crowd in its box.
        results: detections in COCO's form.
        with_masks: whether masks are scored.
    """
    found = {}
    for kind, (compared, key) in _KINDS.items():
        if kind == "mask" and not with_masks:
            continue
        given = _with_crowds(truth) if kind == "mask" else truth
        found[kind] = coco_score(given, [each for each in results if key in each], compared)
    return found


def _with_crowds(truth: Truth) -> Truth:
    """Return annotations in which objects without a mask are crowds that fill their boxes."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    annotations = [
        each
        if "segmentation" in each
        else each | _filled(each["bbox"], *sizes[each["image_id"]]) | {"iscrowd": 1}
        for each in truth["annotations"]
    ]
    return truth | {"annotations": annotations}


def _filled(box: Sequence[float], width: int, height: int) -> dict[str, Any]:
    """Return the mask of all pixels that a box touches."""
    left, top = int(box[0]), int(box[1])
    part = np.ones((ceil(box[1] + box[3]) - top, ceil(box[0] + box[2]) - left), bool)
    part = part[: height - top, : width - left]
    counts = text_of_part(part, left, top, width, height)
    return {"segmentation": {"size": [height, width], "counts": counts}}


def metrics_of(scores: Mapping[str, CocoScore]) -> dict[str, float]:
    """Return the metrics of boxes and masks in one: ``box_AP``, ``mask_AP``, …."""
    return {
        f"{kind}_{name}": value
        for kind, score in scores.items()
        for name, value in score.metrics.items()
    }


def class_table(scores: Mapping[str, CocoScore], truth: Truth) -> bytes:
    """Return AP and the number of objects of each annotated class, without crowds, as CSV."""
    names = {each["id"]: each["name"] for each in truth["categories"]}
    counts = Counter(
        names[each["category_id"]] for each in truth["annotations"] if not each["iscrowd"]
    )
    rows = [
        [name, *(score.by_class.get(name, "") for score in scores.values()), counts[name]]
        for name in sorted(counts)
    ]
    return csv_of([["class", *(f"{kind}_AP" for kind in scores), "objects"], *rows])
