"""The score of detected objects: COCO's metrics of boxes and masks, and a table of the classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.metrics.coco import CocoScore, Kind, coco_score
from pipelines.finetune.coco_rows import Truth
from pipelines.finetune.csv_tables import csv_of

CLASSES: Final = "classes.csv"
_KINDS: Final[dict[str, tuple[Kind, str]]] = {
    "box": ("bbox", "bbox"),
    "mask": ("segm", "segmentation"),
}
"What is compared, and the key of an annotation that has it."


def scores_of(
    truth: Truth, results: Sequence[Mapping[str, Any]], *, with_masks: bool
) -> dict[str, CocoScore]:
    """Return the score of boxes and, if ``with_masks``, of masks, by ``box`` and ``mask``.

    Args:
        truth: annotations of a split; those without a mask do not count among masks.
        results: detections in COCO's form.
        with_masks: whether masks are scored.
    """
    found = {}
    for kind, (compared, key) in _KINDS.items():
        if kind == "mask" and not with_masks:
            continue
        given = truth | {"annotations": [each for each in truth["annotations"] if key in each]}
        found[kind] = coco_score(given, [each for each in results if key in each], compared)
    return found


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
