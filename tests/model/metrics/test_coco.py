"""Average precision against pycocotools on random detections, and by hand."""

import contextlib
import io
import math

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.metrics.coco import coco_score

SIDE = 200
PLACES = {
    "AP": 0, "AP50": 1, "AP75": 2, "AP_small": 3, "AP_medium": 4, "AP_large": 5, "AR100": 8,
}  # fmt: skip
CATEGORIES = [{"id": id_, "name": f"class {id_}"} for id_ in (1, 5, 90)]
"The last one has no object."


def ellipse(box: list[float]) -> dict:
    x, y, w, h = box
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    text = masks.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": text["size"], "counts": text["counts"].decode()}


def random_set(seed: int, *, num_images: int = 12, most: int = 120) -> tuple[dict, list[dict]]:
    """Objects of all sizes, some of them crowds; detections near them and elsewhere."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(num_images):
        for _ in range(int(rng.integers(0, 6))):
            w, h = rng.uniform(4, 130, 2)
            box = [*rng.uniform(0, SIDE - 130, 2).tolist(), w, h]
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "bbox": box,
                "category_id": int(rng.choice([1, 5])), "iscrowd": int(rng.random() < 0.1),
                "segmentation": ellipse(box), "area": w * h * math.pi / 4,
            })  # fmt: skip
            for _ in range(int(rng.integers(0, 4))):
                near = (np.array(box) + rng.normal(0, 4, 4)).clip(1, SIDE).tolist()
                detections.append((image, near))
        detections += [
            (image, [*rng.uniform(0, 150, 2).tolist(), *rng.uniform(3, 50, 2).tolist()])
            for _ in range(int(rng.integers(0, most if image == 3 else 5)))
        ]
    made = [
        {
            "image_id": image, "category_id": int(rng.choice([1, 5, 90])), "bbox": box,
            "score": float(rng.integers(1, 40)) / 40, "segmentation": ellipse(box),
        }
        for image, box in detections
    ]  # fmt: skip
    images = [{"id": i, "width": SIDE, "height": SIDE} for i in range(num_images)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, made


def of_pycocotools(truth: dict, detections: list[dict], kind: str) -> COCOeval:
    drop = {"bbox": "segmentation", "segm": "bbox"}[kind]
    given = [{k: v for k, v in each.items() if k != drop} for each in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = truth
        true.createIndex()
        evaluation = COCOeval(true, true.loadRes(given), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_it_equals_pycocotools(kind, seed):
    truth, detections = random_set(seed)
    found = coco_score(truth, detections, kind)
    theirs = of_pycocotools(truth, detections, kind)
    expected = {name: theirs.stats[place] for name, place in PLACES.items()}
    assert found.metrics == pytest.approx(
        {name: value for name, value in expected.items() if value > -1}, abs=1e-12
    )
    assert 0.03 < found.metrics["AP"] < 0.95
    precision = theirs.eval["precision"][:, :, :, 0, -1]
    assert found.by_class == pytest.approx(
        {f"class {id_}": precision[:, :, i].mean() for i, id_ in enumerate((1, 5))}, abs=1e-12
    )


def test_by_hand():
    """One object found exactly, another one with an overlap of 0.64: AP 0.65, of ten overlaps."""
    boxes = [[0, 0, 50, 50], [100, 100, 50, 50]]
    truth = {
        "images": [{"id": 1, "width": SIDE, "height": SIDE}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": b, "area": 2500, "iscrowd": 0}
            for i, b in enumerate(boxes, start=1)
        ],
        "categories": CATEGORIES,
    }
    made = [
        {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": boxes[0]},
        {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [100, 100, 50, 32]},
    ]
    found = coco_score(truth, made, "bbox")
    half = 51 / 101  # recalls up to a half, of 101
    assert found.metrics["AP50"] == 1
    assert found.metrics["AP75"] == pytest.approx(half)
    assert found.metrics["AP"] == pytest.approx((3 + 7 * half) / 10)
    assert found.by_class == {"class 1": pytest.approx(found.metrics["AP"])}
    assert "AP_large" not in found.metrics


def test_without_detections_the_precision_is_zero_and_without_objects_there_is_none():
    truth, detections = random_set(0)
    assert coco_score(truth, [], "bbox").metrics["AP"] == 0
    assert set(coco_score(truth, [], "segm").by_class.values()) == {0.0}
    empty = coco_score({**truth, "annotations": []}, detections, "bbox")
    assert empty.metrics == empty.by_class == {}
