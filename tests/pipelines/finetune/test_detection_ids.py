"""The score of a detection is that of pycocotools for the submission, whatever ids images have."""

import contextlib
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataprep.schemas import EXAMPLES
from tests.pipelines.finetune.examples import examples, predictions, task_of

IDS = [7, 100, -3, 20, 3, 0, 11, -12, 1000, 5]
CLASSES = {"circle": 7, "ring": 90}


def table_with_ids() -> pa.Table:
    rows = examples("detection", len(IDS)).to_pylist()
    for row, id_ in zip(rows, IDS, strict=True):
        row["example_id"] = str(id_)
    return pa.Table.from_pylist(rows, EXAMPLES)


def equally_sure(table: pa.Table) -> pa.Table:
    """Detections most of whose scores are equal, so that their order decides."""
    rng, rows = np.random.default_rng(1), []
    for given in table.to_pylist():
        things = given["objects"] * 2
        boxes = [[max(v + rng.normal(0, 2), 1) for v in thing["box"]] for thing in things]
        rows.append({
            "example_id": given["example_id"], "size": given["size"],
            "labels": [str(rng.choice([*CLASSES])) for _ in things],
            "scores": sorted(rng.choice([0.25, 0.5], len(things)).tolist(), reverse=True),
            "boxes": boxes, "masks": [thing["mask"] for thing in things],
        })  # fmt: skip
    return predictions(rows)


def coco_of(table: pa.Table) -> dict:
    images = [
        {"id": int(row["example_id"]), "width": row["size"][0], "height": row["size"][1]}
        for row in table.to_pylist()
    ]
    annotations = [
        {"image_id": int(row["example_id"]), "category_id": CLASSES[label], "bbox": thing["box"],
         "area": thing["area"], "iscrowd": int(thing["is_crowd"])}
        for row in table.to_pylist()
        for thing, label in zip(row["objects"], row["labels"], strict=True)
    ]  # fmt: skip
    annotations = [{"id": i} | each for i, each in enumerate(annotations, start=1)]
    categories = [{"id": id_, "name": name} for name, id_ in CLASSES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_equal_scores_are_ranked_by_the_ids_of_images_as_in_pycocotools(tmp_path):
    table = table_with_ids()
    path, made = tmp_path / "instances.json", equally_sure(table)
    path.write_text(json.dumps(coco_of(table)))
    task = task_of("detection", categories=str(path), masks=False)
    results = json.loads(task.submission(made))
    assert {each["image_id"] for each in results} == {
        int(row["example_id"]) for row in table.to_pylist() if row["objects"]
    }
    boxes = [{k: v for k, v in each.items() if k != "segmentation"} for each in results]
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO(str(path))
        evaluation = COCOeval(true, true.loadRes(boxes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = task.score(made, table)
    for name, place in (("AP", 0), ("AP50", 1), ("AP75", 2), ("AR100", 8)):
        assert metrics[f"box_{name}"] == pytest.approx(evaluation.stats[place], abs=1e-9)
    backwards = [table.take(np.arange(len(IDS))[::-1]), made.take(np.arange(len(IDS))[::-1])]
    assert task.score(backwards[1], backwards[0]) == metrics
