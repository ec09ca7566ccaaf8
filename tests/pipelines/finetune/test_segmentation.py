"""Segmentation as a task: what crops, predictions, score and its tables make of label maps."""

import csv
import io
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from dataprep.images import encode_jpeg
from dataprep.schemas import EXAMPLES, PREDICTIONS
from dataprep.tasks.label_classes import IGNORED
from dataprep.tasks.stored_label_maps import fractions, restored, stored
from orchestration.storage.store import Store
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.label_map_score import CLASSES, CONFUSION, score_of
from pipelines.finetune.label_map_views import CropParams, training_crops
from pipelines.finetune.predicting import Evaluator, Predictor
from pipelines.finetune.task import Draw
from pipelines.finetune.texts import TextEncoder
from tests.committing import commit_tables
from tests.model.networks import RELEASED
from tests.pipelines.finetune.examples import (
    builder,
    examples,
    network_of,
    task_of,
    text_tokenizer,
)

NAMES = ["ground", "disk", "bar"]
NUMBERS = {name: i for i, name in enumerate(NAMES)}
WIDTH, HEIGHT = 90, 60
SHADES = (0, 128, 255)


def drawn(number: int, scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A gray disk and a white bar on black, and the classes; a corner is of none."""
    rows, columns = (np.mgrid[: HEIGHT * scale, : WIDTH * scale] + 0.5) / scale
    labels = np.zeros(rows.shape, np.uint8)
    labels[(columns - 20 - 5 * number) ** 2 + (rows - 25) ** 2 <= 14**2] = 1
    labels[(columns > 60) & (columns < 82) & (rows > 10) & (rows < 50)] = 2
    pixels = np.repeat(np.array(SHADES, np.uint8)[labels][..., None], 3, 2)
    labels[: 4 * scale, : 4 * scale] = IGNORED
    return pixels, labels


def example(number: int, scale: int = 1) -> dict:
    """An example; the label map may be larger than the stored image."""
    png, names = stored(drawn(number, scale)[1], NAMES)
    return {
        "example_id": f"e{number}", "images": [encode_jpeg(drawn(number)[0], 95)], "texts": [],
        "labels": names, "main_label": "", "objects": [],
        "size": [WIDTH * scale, HEIGHT * scale], "label_map": png,
    }  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return pa.Table.from_pylist([example(0), example(1), example(2, 2)], EXAMPLES)


def test_a_stored_label_map_is_the_given_one_under_any_numbers():
    rng = np.random.default_rng(0)
    names = [f"class {i}" for i in range(IGNORED)]
    for some in (range(IGNORED), (3, 250), (7,)):
        labels = rng.choice([*some, IGNORED], (30, 40)).astype(np.uint8)
        png, present = stored(labels, names)
        counts = [int((labels == names.index(name)).sum()) for name in present]
        assert counts == sorted(counts, reverse=True) and min(counts) > 0
        np.testing.assert_allclose(fractions(png, len(present)), np.array(counts) / sum(counts))
        numbers = {name: i for i, name in enumerate(names)}
        assert (restored(png, present, numbers) == labels).all()
        shifted = {name: (i + 1) % IGNORED for name, i in numbers.items()}
        expected = np.where(labels == IGNORED, IGNORED, (labels.astype(int) + 1) % IGNORED)
        assert (restored(png, present, shifted) == expected).all()
        assert (restored(png, present, {}) == IGNORED).all()


def draw(*slots: int, step: int = 2) -> Draw:
    return Draw(5, step, np.array(slots), flip=True)


PARAMS = CropParams((0.6, 1.6), 0.9, distort=False)


def test_the_classes_of_a_crop_are_those_of_its_pixels(rows):
    seen = set()
    for step in range(8):
        for pixels, labels in training_crops(rows, NUMBERS, 64, PARAMS, draw(0, 1, 2, step=step)):
            assert pixels.shape == (64, 64, 3) and labels.shape == (64, 64)
            for number, shade in enumerate(SHADES):
                inner = cv2.erode((labels == number).astype(np.uint8), np.ones((5, 5))) > 0
                assert np.abs(pixels[inner].astype(int) - shade).mean() < 6 if inner.any() else True
            seen |= {*np.unique(labels).tolist()}
    assert seen == {0, 1, 2, IGNORED}


def test_classes_that_the_network_does_not_have_are_ignored(rows):
    task = task_of("segmentation")
    for _, labels in training_crops(rows, {"bar": 0}, 64, PARAMS, draw(0, 1, 2)):
        assert {*np.unique(labels).tolist()} <= {0, IGNORED}
    assert task.is_used(rows, {"bar": 0}) == [True] * 3
    assert task.is_used(rows, {"star": 0}) == [False] * 3


def test_a_crop_depends_on_its_slot_and_not_on_the_division_of_a_batch(rows):
    params = replace(PARAMS, distort=True)
    whole = list(training_crops(rows, NUMBERS, 64, params, draw(4, 8, 9)))
    for i, slot in enumerate((4, 8, 9)):
        (alone,) = training_crops(rows.slice(i, 1), NUMBERS, 64, params, draw(slot))
        assert (alone[0] == whole[i][0]).all() and (alone[1] == whole[i][1]).all()
    plain = list(training_crops(rows, NUMBERS, 64, PARAMS, draw(4, 8, 9)))
    assert all((one[1] == other[1]).all() for one, other in zip(plain, whole, strict=True))
    assert any((one[0] != other[0]).any() for one, other in zip(plain, whole, strict=True))


class ByShade:
    """A network that knows the class of each pixel by its brightness."""

    class network:
        class config:
            image_size = 64

    def scores(self, images):
        shades = (images.mean(dim=1, keepdim=True) + 1) / 2 * 255
        return -(shades - torch.tensor(SHADES).view(1, 3, 1, 1)).abs()


def predicted(rows: pa.Table, monkeypatch, **changes) -> pa.Table:
    """Predictions of that network in the form of the stage ``predict``."""
    monkeypatch.setattr("pipelines.finetune.tasks.segmentation.ForSegmentation", ByShade)
    task = task_of("segmentation", **changes)
    batch = TaskBatch(
        np.arange(len(rows)), pixel_mean=torch.full((3,), 0.5), pixel_std=torch.full((3,), 0.5)
    )
    batch = task.dense_batch(batch, rows, NUMBERS, 64, None).to(torch.device("cpu"))
    found = task.predict(ByShade(), batch, NAMES)
    table = [
        {"row": i, "example_id": name, **vars(each)}
        for i, (name, each) in enumerate(zip(rows["example_id"].to_pylist(), found, strict=True))
    ]
    return pa.Table.from_pylist(table, PREDICTIONS)


@pytest.mark.parametrize(
    "changes", [{}, {"test_scales": [0.75, 1.5], "test_flip": True, "window_stride": 0.5}]
)
def test_predictions_have_the_size_of_the_annotated_image_and_lie_on_it(rows, monkeypatch, changes):
    made = predicted(rows, monkeypatch, **changes)
    for row, given in zip(made.to_pylist(), rows.to_pylist(), strict=True):
        assert row["size"] == given["size"]
        found = restored(row["label_map"], row["labels"], NUMBERS)
        assert [*found.shape[::-1]] == given["size"]
        assert row["labels"][0] == "ground" and sum(row["scores"]) == pytest.approx(1)
        true = restored(given["label_map"], given["labels"], NUMBERS)
        assert (found == true)[true != IGNORED].mean() > 0.94
    metrics = task_of("segmentation").score(made, rows)
    assert metrics["mIoU"] > 0.8 and metrics["pixel_accuracy"] > 0.94


def test_the_score_is_that_of_all_pixels_together_beside_chance(rows, monkeypatch):
    """Against scikit-learn; an image without a label map does not count."""
    made, task = predicted(rows, monkeypatch), task_of("segmentation")
    bare = {**example(0), "labels": [], "label_map": None}
    given = pa.Table.from_pylist([*rows.to_pylist(), bare], EXAMPLES)
    made = pa.concat_tables([made, made.slice(0, 1)])
    pairs = [
        (restored(t["label_map"], t["labels"], NUMBERS).ravel(),
         restored(f["label_map"], f["labels"], NUMBERS).ravel())
        for f, t in zip(made.to_pylist(), rows.to_pylist(), strict=False)
    ]  # fmt: skip
    true, found = (np.concatenate(some) for some in zip(*pairs, strict=True))
    found, true = found[true != IGNORED], true[true != IGNORED]
    metrics, left_out = task.full_score(made, given)
    ious = jaccard_score(true, found, average=None)
    assert metrics["mIoU"] == pytest.approx(ious.mean()) and not left_out
    constant = np.zeros_like(true)
    assert metrics["chance/mIoU"] == pytest.approx(jaccard_score(true, constant, average="macro"))
    assert metrics["chance/pixel_accuracy"] == pytest.approx((true == 0).mean())
    assert metrics["chance/class_accuracy"] == pytest.approx(1 / 3)

    tables = {
        name: list(csv.reader(io.StringIO(data.decode())))
        for name, data in task.score_files(made, given).items()
    }
    by_class = {row[0]: row[1:] for row in tables[CLASSES][1:]}
    for name, iou in zip(NAMES, ious, strict=True):
        assert float(by_class[name][0]) == pytest.approx(iou)
        assert int(by_class[name][2]) == (true == NUMBERS[name]).sum()
    order = tables[CONFUSION][0][1:]
    assert order == sorted(NAMES)
    expected = confusion_matrix(true, found, labels=[NUMBERS[name] for name in order])
    assert [[int(v) for v in row[1:]] for row in tables[CONFUSION][1:]] == expected.tolist()


def test_label_maps_decide_what_is_scored_and_which_classes_there_are(rows):
    task = task_of("segmentation")
    bare = pa.Table.from_pylist([{**example(0), "labels": [], "label_map": None}], EXAMPLES)
    assert task.can_score(rows) and not task.can_score(bare)
    assert task.label_names({"train": bare, "dev": rows}) == ["bar", "disk", "ground"]
    with pytest.raises(ValueError, match="no image of train and dev has a label map"):
        task.label_names({"train": bare})
    many = [{**example(0), "labels": [f"{i}" for i in range(256)]}]
    with pytest.raises(ValueError, match="256 classes in label maps"):
        score_of(pa.Table.from_pylist(many, EXAMPLES), bare)


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, 32, None),
        ({}, 40, "network.image_size = 40 is not a multiple of 16, which the head pyramid needs"),
        ({"head": "mask2former"}, 48, "is not a multiple of 32, which the head mask2former needs"),
        (
            {"head": "mask2former"},
            64,
            "adapter.num_heads = 16 does not divide the width 24 of the values",
        ),
        (
            {
                "head": "mask2former",
                "sizes": {
                    "adapter": {"num_heads": 4},
                    "masks": {"width": 64, "num_heads": 5},
                },
            },
            64,
            "masks.num_heads = 5 does not divide task.sizes.masks.width = 64",
        ),
    ],
)
def test_windows_and_widths_that_the_head_cannot_divide_are_refused(changes, size, message):
    task, config = task_of("segmentation", **changes), replace(RELEASED, image_size=size)
    if message is None:
        assert task.unfit_input(config) is None
        return
    with pytest.raises(ValueError, match=message):
        ExampleBuilder(task, config, TextEncoder(text_tokenizer(), 8), NAMES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratios": (0, 1)}, "is no range of positive numbers"),
        ({"ratios": (1.5, 0.5)}, "is no range of positive numbers"),
        ({"head": "mask2former", "class_balance": 0.5}, "no effect on the head mask2former"),
        ({"test_scales": (1.0, -1.0)}, "has a number that is not positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        task_of("segmentation", **changes)


@torch.no_grad()
def test_an_evaluation_is_the_same_to_the_last_digit_for_any_workers(tmp_path):
    built, table = builder("segmentation"), examples("segmentation", 23)
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
        found[number] = predicted, built.task.full_score(predicted, table)
    assert found[2] == found[1] and found[4] == found[1]
