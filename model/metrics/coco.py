"""COCO's average precision of boxes or masks, computed by faster-coco-eval.

Definition: https://cocodataset.org/#detection-eval. AP is the mean over ten overlaps from 0.5 to
0.95, over classes and over 101 recalls, with at most 100 detections of an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

Kind = Literal["bbox", "segm"]
METRICS: Final = {
    "AP": 0,
    "AP50": 1,
    "AP75": 2,
    "AP_small": 3,
    "AP_medium": 4,
    "AP_large": 5,
    "AR100": 8,
}
"Metrics, and their positions in COCO's list of twelve."
_ALL_AREAS, _MOST = 0, -1


@dataclass(frozen=True)
class CocoScore:
    """Average precision of a set of images; what has no annotated object is left out."""

    metrics: dict[str, float]
    "AP, AP50, AP75, AP by size of the objects, and average recall, 0-1."
    by_class: dict[str, float]
    "AP of each class by name."


def coco_score(
    truth: Mapping[str, Sequence[Mapping[str, Any]]],
    detections: Sequence[Mapping[str, Any]],
    kind: Kind,
) -> CocoScore:
    """Return the average precision of detections.

    Args:
        truth: ``images`` (id, width, height), ``annotations`` (id, image_id, category_id, bbox,
            area, iscrowd; segmentation for masks) and ``categories`` (id, name), as in COCO's JSON.
        detections: image_id, category_id, score, and ``bbox`` or ``segmentation`` as run lengths.
        kind: which of both is compared.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    given = {key: [dict(entry) for entry in entries] for key, entries in truth.items()}
    own = "bbox" if kind == "bbox" else "segmentation"
    keys = ("image_id", "category_id", "score", own)
    true = COCO(given)
    found = true.loadRes([{key: entry[key] for key in keys} for entry in detections])
    evaluation = COCOeval_faster(true, found, kind, print_function=_nowhere)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # (overlaps, recalls, classes, areas, numbers of detections); -1 where there is no object.
    precision = evaluation.eval["precision"][:, :, :, _ALL_AREAS, _MOST]
    names = {entry["id"]: entry["name"] for entry in truth["categories"]}
    by_class = {
        names[id_]: float(of_class.mean())
        for id_, of_class in zip(
            evaluation.params.catIds, np.moveaxis(precision, 2, 0), strict=True
        )
        if (of_class > -1).all()
    }
    metrics = {name: float(evaluation.stats[place]) for name, place in METRICS.items()}
    return CocoScore({name: value for name, value in metrics.items() if value > -1}, by_class)


def _nowhere(*words: object) -> None:
    """Take the library's progress messages."""
