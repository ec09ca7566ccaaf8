"""Detection as a task: what views, predictions, score and submission make of boxes and masks."""

import contextlib
import csv
import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataprep.images import encode_jpeg
from dataprep.schemas import EXAMPLES, PREDICTIONS
from dataprep.tasks.example import AnnotatedObject
from dataprep.tasks.run_lengths import mask_of, text_of_mask
from model.finetuning.detection.masks import cut_out
from model.finetuning.detection.network import Detections
from orchestration.storage.store import Store
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.coco_rows import results_of, truth_of
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.object_views import training_views
from pipelines.finetune.predicting import Evaluator, Predictor
from pipelines.finetune.task import Draw
from pipelines.finetune.tasks.detection import Detection
from pipelines.finetune.texts import TextEncoder
from tests.committing import commit_tables
from tests.model.networks import RELEASED
from tests.pipelines.finetune.examples import (
    builder,
    examples,
    labelled,
    network_of,
    predictions,
    task_of,
    text_tokenizer,
)

LABELS = {"circle": 0, "ring": 1}
WIDTH, HEIGHT = 90, 60


def scene(number: int) -> dict:
    """A white disk and a white bar on black; the disk is a circle, the bar a ring."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    x = 20 + 5 * number
    disk = (columns - x) ** 2 + (rows - 25) ** 2 <= 14**2
    bar = (columns > 60) & (columns < 82) & (rows > 10) & (rows < 50)
    pixels = np.repeat((disk | bar)[:, :, None], 3, 2).astype(np.uint8) * 255
    objects = [
        AnnotatedObject(1, (x - 14, 11, 28, 28), float(disk.sum()), False, text_of_mask(disk)),
        AnnotatedObject(2, (60, 10, 22, 40), float(bar.sum()), False, text_of_mask(bar)),
        AnnotatedObject(3, (0, 0, 9, 9), 81.0, True, ""),
    ]
    return {
        "example_id": f"{100 + number}",
        "images": [encode_jpeg(pixels, 95)],
        "texts": [],
        "labels": ["circle", "ring", "ring"],
        "main_label": "",
        "objects": [thing._asdict() for thing in objects],
        "size": [WIDTH, HEIGHT],
    }


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return pa.Table.from_pylist([scene(i) for i in range(3)], EXAMPLES)


def draw(*slots: int) -> Draw:
    return Draw(5, 2, np.array(slots), flip=True)


def test_boxes_and_masks_of_a_view_lie_on_the_drawn_pixels(rows):
    num_objects = 0
    for step in range(8):
        some = replace(draw(0, 1, 2), step=step)
        for view in training_views(rows, LABELS, 64, (0.6, 1.6), some, with_masks=True):
            white = view.pixels[:, :, 0] > 160
            white[view.seen[0] :] = white[:, view.seen[1] :] = False
            union = np.zeros_like(white)
            for box, mask in zip(view.objects.boxes, view.objects.masks, strict=True):
                left, top, right, bottom = box.int().tolist()
                assert mask[top:bottom, left:right].sum() == mask.sum() > 0
                assert mask[top].any() and mask[:, right - 1].any()
                union |= mask.numpy()
            num_objects += len(view.objects)
            assert (white ^ union).sum() <= 0.1 * white.sum() + 12
            assert view.annotated == (HEIGHT, WIDTH)
    assert num_objects > 30


def test_crowds_and_unlisted_classes_are_not_trained_on(rows):
    (view, *_) = training_views(rows, {"ring": 0}, 64, (1.0, 1.0), draw(0, 1, 2), with_masks=True)
    assert view.objects.classes.tolist() == [0]
    (bare, *_) = training_views(rows, LABELS, 64, (1.0, 1.0), draw(0, 1, 2), with_masks=False)
    assert bare.objects.classes.tolist() == [0, 1] and bare.objects.masks.shape == (2, 0, 0)
    assert not bare.objects.has_mask.any()


def test_a_view_depends_on_its_slot_and_not_on_the_division_of_a_batch(rows):
    whole = list(training_views(rows, LABELS, 64, (0.5, 2.0), draw(4, 8, 9), with_masks=True))
    for i, slot in enumerate((4, 8, 9)):
        part = rows.slice(i, 1)
        (alone,) = training_views(part, LABELS, 64, (0.5, 2.0), draw(slot), with_masks=True)
        assert (alone.pixels == whole[i].pixels).all()
        assert torch.equal(alone.objects.boxes, whole[i].objects.boxes)


class Perfect:
    """A network that finds every object of an evaluation view, as the annotations have it."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows.to_pylist()

    def detect(self, images, seen, choice) -> list[Detections]:
        found = []
        for row, (height, width) in zip(self.rows, seen, strict=True):
            things = [thing for thing in row["objects"] if not thing["is_crowd"]]
            scale = torch.tensor([width / WIDTH, height / HEIGHT] * 2)
            corners = [[x, y, x + w, y + h] for x, y, w, h in (t["box"] for t in things)]
            boxes = torch.tensor(corners).float()
            masks = np.stack([mask_of(t["mask"], WIDTH, HEIGHT) for t in things])
            cut = cut_out(torch.from_numpy(masks.copy()), torch.arange(len(things)), boxes)
            classes = torch.tensor([LABELS[name] for name in row["labels"][: len(things)]])
            found.append(
                Detections(boxes * scale, torch.linspace(0.9, 0.5, len(things)), classes, cut)
            )
        return found


def predicted(task: Detection, rows: pa.Table, monkeypatch) -> pa.Table:
    """Predictions of a perfect network in the form of the stage ``predict``."""
    monkeypatch.setattr("pipelines.finetune.tasks.detection.ForDetection", Perfect)
    batch = task.dense_batch(TaskBatch(np.arange(3)), rows, LABELS, 64, None)
    batch = replace(batch, images=torch.zeros(3, 1, 3, 64, 64))
    assert list(batch.seen) == [(43, 64)] * 3
    found = task.predict(Perfect(rows), batch, list(LABELS))
    table = [
        {"row": i, "example_id": name, **vars(each)}
        for i, (name, each) in enumerate(zip(rows["example_id"].to_pylist(), found, strict=True))
    ]
    return pa.Table.from_pylist(table, PREDICTIONS)


def test_predictions_are_in_pixels_of_the_annotated_image(rows, monkeypatch):
    made = predicted(task_of("detection"), rows, monkeypatch).to_pylist()
    for row, given in zip(made, rows.to_pylist(), strict=True):
        assert row["size"] == [WIDTH, HEIGHT]
        assert row["labels"] == ["circle", "ring"]
        for box, mask, thing in zip(row["boxes"], row["masks"], given["objects"], strict=False):
            assert box == pytest.approx(thing["box"], abs=1e-3)
            found, true = (mask_of(text, WIDTH, HEIGHT) for text in (mask, thing["mask"]))
            assert (found & true).sum() / (found | true).sum() > 0.93


def test_perfect_predictions_have_full_scores_and_an_official_submission(
    rows, monkeypatch, tmp_path
):
    categories = tmp_path / "instances.json"
    ids = [{"id": 7, "name": "circle"}, {"id": 90, "name": "ring"}]
    categories.write_text(json.dumps({"images": [], "annotations": [], "categories": ids}))
    task = task_of("detection", categories=str(categories))
    assert task.requires() is None
    made = predicted(task, rows, monkeypatch)
    metrics = task.score(made, rows)
    assert metrics["box_AP"] == 1 and metrics["mask_AP"] > 0.9
    assert set(metrics) <= set(task.metric_names)
    assert task_of("detection", masks=False).score(made, rows).keys() == {
        name for name in metrics if name.startswith("box")
    }
    # Read by the official program, against annotations with the published ids.
    results = json.loads(task.submission(made))
    assert {each["category_id"] for each in results} == {7, 90}
    assert [each["image_id"] for each in results] == [100, 100, 101, 101, 102, 102]
    truth = truth_of(rows, {"circle": 7, "ring": 90})
    for entry in (*truth["images"], *truth["annotations"]):
        entry["id" if "width" in entry else "image_id"] += 100
    for kind, metric in (("bbox", "box_AP"), ("segm", "mask_AP")):
        unused = {"bbox": "segmentation", "segm": "bbox"}[kind]
        given = [{key: v for key, v in each.items() if key != unused} for each in results]
        with contextlib.redirect_stdout(io.StringIO()):
            true = COCO()
            masked = [each for each in truth["annotations"] if "segmentation" in each]
            true.dataset = {**truth, "annotations": masked}
            true.createIndex()
            evaluation = COCOeval(true, true.loadRes(given), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(metrics[metric], abs=0.02)


def test_the_table_of_classes_has_the_values_of_pycocotools_for_each_class_alone():
    """Detections of random examples, whose crowds count in no class."""
    table = examples("detection", 20)
    rng, rows = np.random.default_rng(4), []
    for given in table.to_pylist():
        things = given["objects"] * 2
        boxes = [[max(v + rng.normal(0, 2), 1) for v in thing["box"]] for thing in things]
        rows.append({
            "labels": [str(rng.choice(["circle", "ring"])) for _ in things], "size": given["size"],
            "scores": sorted(rng.uniform(0, 1, len(things)).tolist(), reverse=True),
            "boxes": boxes, "masks": [thing["mask"] for thing in things],
        })  # fmt: skip
    made, task = predictions(rows), task_of("detection")
    (name, content), *others = task.score_files(made, table).items()
    assert name == "classes.csv" and not others
    header, *found = csv.reader(io.StringIO(content.decode()))
    assert header == ["class", "box_AP", "mask_AP", "objects"]
    assert [row[0] for row in found] == ["circle", "ring"]
    ids = {"circle": 1, "ring": 2}
    truth, results = truth_of(table, ids), list(results_of(made, ids))
    for label, *values, count in found:
        singles = [e for e in truth["annotations"] if e["category_id"] == ids[label]]
        assert int(count) == sum(not each["iscrowd"] for each in singles) > 0
        for kind, value in zip(("bbox", "segm"), values, strict=True):
            unused = {"bbox": "segmentation", "segm": "bbox"}[kind]
            given = [{key: v for key, v in each.items() if key != unused} for each in results]
            with contextlib.redirect_stdout(io.StringIO()):
                true = COCO()
                true.dataset = truth
                true.createIndex()
                evaluation = COCOeval(true, true.loadRes(given), kind)
                evaluation.params.catIds = [ids[label]]
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            assert float(value) == pytest.approx(evaluation.stats[0], abs=1e-9)
            assert 0 < float(value) < 1
    bare = task_of("detection", masks=False).score_files(made, table)["classes.csv"].decode()
    assert bare.splitlines()[0] == "class,box_AP,objects"


def test_finding_the_mask_of_an_object_without_one_is_neither_right_nor_wrong(rows, monkeypatch):
    """All objects of one image lack masks; their detections have the best scores."""
    task = task_of("detection")
    made, given = predicted(task, rows, monkeypatch), rows.to_pylist()
    for thing in given[0]["objects"]:
        thing["mask"] = ""
    bare = pa.Table.from_pylist(given, EXAMPLES)
    better = made.to_pylist()
    better[0]["scores"] = [0.99, 0.98]
    made = pa.Table.from_pylist(better, PREDICTIONS)
    whole, some = task.score(made, rows), task.score(made, bare)
    assert some["box_AP"] == whole["box_AP"] == 1
    assert some["mask_AP50"] == whole["mask_AP50"] == 1
    better[0]["masks"] = [better[0]["masks"][1], better[0]["masks"][0]]  # beside their boxes
    wrong = task.score(pa.Table.from_pylist(better, PREDICTIONS), bare)
    assert wrong["mask_AP50"] < 0.9 and wrong["box_AP"] == 1


def test_crowds_alone_are_neither_trained_on_nor_scored(rows, monkeypatch):
    task = task_of("detection")
    assert task.submission(predicted(task, rows, monkeypatch)) is None
    bare = pa.Table.from_pylist(
        [{**row, "labels": [], "objects": []} for row in rows.to_pylist()], EXAMPLES
    )
    assert task.can_score(rows) and not task.can_score(bare)
    crowds = pa.Table.from_pylist(
        [{**r, "labels": ["ring"], "objects": r["objects"][2:]} for r in rows.to_pylist()], EXAMPLES
    )
    assert not task.can_score(crowds) and task.is_used(crowds, LABELS) == [False] * 3
    assert task.is_used(rows, {"ring": 0}) == [True] * 3
    assert task.is_used(rows, {"star": 0}) == [False] * 3


def test_classes_are_those_of_the_categories_or_those_that_occur(tmp_path):
    path = tmp_path / "categories.json"
    path.write_text(json.dumps({"categories": [{"id": 9, "name": "a"}, {"id": 2, "name": "z"}]}))
    splits = {"train": labelled([["z"], ["b", "a"]])}
    assert task_of("detection").label_names(splits) == ["a", "b", "z"]
    assert task_of("detection", categories=str(path)).label_names(splits) == ["z", "a"]
    path.write_text("[]")
    problem = task_of("detection", categories=str(path)).requires()
    assert problem.startswith("task.categories: ") and str(path) in problem


def test_masks_are_not_predicted_of_data_that_has_none(rows):
    """Else the head of the masks would keep its random weights."""
    bare = rows.to_pylist()
    for thing in (thing for row in bare for thing in row["objects"]):
        thing["mask"] = ""
    splits = {"train": rows, "dev": pa.Table.from_pylist(bare, EXAMPLES)}
    message = r"no object of dev has a mask; set task\.masks=false"
    with pytest.raises(ValueError, match=message):
        task_of("detection").label_names(splits)
    task = task_of("detection", masks=False)
    assert task.label_names(splits) and task.can_score(splits["dev"])


@torch.no_grad()
def test_several_sizes_and_mirroring_give_detections_of_the_same_image():
    built = builder("detection")
    network = network_of(built).float().eval()
    table = examples("detection", 2)
    found = {}
    for name, changes in {
        "plain": {}, "one size": {"test_sizes": [32]},
        "many": {"test_sizes": [32, 64], "test_flip": True},
    }.items():  # fmt: skip
        task = task_of("detection", **changes)
        made = task.dense_batch(
            TaskBatch(np.arange(2), pixel_mean=torch.zeros(3), pixel_std=torch.ones(3)),
            table, LABELS, 32, None,
        ).to(torch.device("cpu"))  # fmt: skip
        found[name] = list(task.predict(network, made, list(LABELS)))
    for one, other in zip(found["plain"], found["one size"], strict=True):
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
    assert all(len(each.boxes) == len(each.masks) == 10 for each in found["many"])


def test_results_of_images_with_names_keep_them():
    rows = [{"row": 0, "example_id": "a/b", "labels": ["ring"], "scores": [0.25],
             "boxes": [[1, 2, 3, 4]], "masks": [], "size": [9, 9]}]  # fmt: skip
    (result,) = results_of(pa.Table.from_pylist(rows, PREDICTIONS), {"ring": 4}, by_name=True)
    assert result == {"image_id": "a/b", "category_id": 4, "bbox": [1, 2, 3, 4], "score": 0.25}


def test_chance_is_the_score_of_the_objects_of_the_image_before(rows):
    task, first = task_of("detection"), rows.slice(0, 1)
    empty = predictions([{"labels": []}] * 3)
    # Of two equal images, the objects of either one are those of the other.
    twice = pa.concat_tables([first, first])
    metrics, left_out = task.full_score(empty.slice(0, 2), twice)
    assert metrics["chance/box_AP"] == metrics["chance/mask_AP"] == 1 and not left_out
    assert metrics["box_AP"] == 0
    # The bars of the three scenes are the same, and so are the disks of none.
    metrics, _ = task.full_score(empty, rows)
    assert metrics["chance/box_AP"] == pytest.approx((1 + metrics_of_disks(rows)) / 2, abs=1e-6)
    large = {**first.to_pylist()[0], "size": [2 * WIDTH, 2 * HEIGHT]}
    doubled = [{**o, "box": [2 * v for v in o["box"]], "mask": ""} for o in large["objects"]]
    both = pa.Table.from_pylist([first.to_pylist()[0], {**large, "objects": doubled}], EXAMPLES)
    boxes_alone = task_of("detection", masks=False)
    assert boxes_alone.full_score(empty.slice(0, 2), both)[0]["chance/box_AP"] == 1


def metrics_of_disks(rows: pa.Table) -> float:
    """AP of the disks of each scene for those of the next one, by their overlap."""
    x = [20 + 5 * i for i in range(3)]
    overlaps = [28 - abs(x[i] - x[i - 1]) for i in range(3)]
    ious = [width / (56 - width) for width in overlaps]
    found = [[iou >= threshold for iou in ious] for threshold in np.arange(0.5, 1, 0.05)]
    return float(np.mean([interpolated(hits) for hits in found]))


def interpolated(hits: list[bool]) -> float:
    """COCO's AP of three detections with equal scores, one for each of three objects."""
    true = np.cumsum(hits)
    precision = np.maximum.accumulate((true / np.arange(1, 4))[::-1])[::-1]
    recall = true / 3
    points = np.linspace(0, 1, 101)
    index = np.searchsorted(recall, points)
    return float(np.mean([precision[i] if i < 3 else 0.0 for i in index]))


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, 32, None),
        ({"test_sizes": [32, 96]}, 64, None),
        ({}, 40, "network.image_size = 40 is not a multiple of 32, which is four patches"),
        ({"test_sizes": [64, 72]}, 32, "task.test_sizes = 72 is not a multiple of 32"),
        ({"test_sizes": [0]}, 32, "task.test_sizes = 0 is not a multiple of 32"),
    ],
)
def test_images_of_a_side_that_the_pyramid_cannot_divide_are_refused(changes, size, message):
    task, config = task_of("detection", **changes), replace(RELEASED, image_size=size)
    if message is None:
        assert task.unfit_input(config) is None
        return
    with pytest.raises(ValueError, match=message):
        ExampleBuilder(task, config, TextEncoder(text_tokenizer(), 8), LABELS)


def test_patches_that_the_pyramid_cannot_divide_are_refused():
    config = replace(RELEASED, patch_size=14, image_size=112)
    problem = task_of("detection").unfit_input(config)
    assert problem.startswith("network.patch_size = 14 is not a multiple of 4")
    assert "set network.patch_size=16" in problem


@pytest.mark.parametrize("scales", [(0, 1), (1.5, 0.5), (-1, 1)])
def test_scales_that_are_no_range_are_refused(scales):
    with pytest.raises(ValueError, match="is no range of positive numbers"):
        task_of("detection", scales=scales)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["detection", "dual"])
def test_an_evaluation_is_the_same_to_the_last_digit_for_any_workers(kind, tmp_path):
    built, table = builder(kind), examples(kind, 23)
    network = network_of(built).float()
    dataset = commit_tables(Store(tmp_path), [table], row_group_rows=8)
    exact, found = torch.autocast("cpu", enabled=False), {}
    for number in (1, 2, 4):
        predictor = Predictor(built.task, built, list(built.numbers), dataset, 3)
        made = [
            row
            for rank in range(number)
            for row in predictor(network, Evaluator(predictor, rank, number).mine, exact)
        ]
        made.sort(key=lambda row: row["row"])
        assert [row["row"] for row in made] == list(range(23))
        predicted = pa.Table.from_pylist(made, PREDICTIONS)
        found[number] = predicted, built.task.score(predicted, table)
    assert found[2] == found[1] and found[4] == found[1]
