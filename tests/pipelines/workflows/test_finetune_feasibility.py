"""What a fine-tuning needs of its recipe and its data, said by the plan, before work starts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataprep.tasks.stored_label_maps import stored
from orchestration.errors import RecipeError
from orchestration.manifest import Manifest
from orchestration.reporting.estimates import Estimate
from orchestration.slices import Output
from orchestration.storage.store import Store
from pipelines.commands.options import console
from pipelines.open_recipe import open_recipe
from pipelines.workflows.finetune import build_finetuning
from pipelines.workflows.finetune_feasibility import implications, impossible
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from tests.committing import commit_outputs
from tests.crashes import finetuning
from tests.pipelines.finetune.examples import TASKS, examples, predictions, task_of
from tests.pipelines.finetune.jobs import vocabulary

LABELS = {"format": "own_labels", "file": "a.jsonl"}
CAPTIONS = {"format": "own_captions", "file": "a.jsonl"}
QUESTIONS = {"format": "own_questions", "file": "a.jsonl"}
OTHER_QUESTIONS = QUESTIONS | {"file": "b.jsonl"}
VQAV2 = {"format": "vqav2", "files": [{"questions": "q.json", "images": "images"}]}
STSB = {"format": "glue", "corpus": "stsb", "file": "train.tsv"}
RTE = {"format": "glue", "corpus": "rte", "file": "train.tsv"}
ZEROS = stored(np.zeros((40, 44), np.uint8), ["ground"])[0]
MIXED = {"name": "image_classification", "form": "linear", "mixup": 0.8}


def recipe(task: dict[str, Any], *splits: dict[str, Any], **changes: Any) -> FinetuneRecipe:
    data = dict(zip(("train", "dev", "test"), splits, strict=False))
    values = {"name": "own", "task": task, "start_from": "runs/demo", "data": data}
    return FinetuneRecipe.model_validate(values | changes)


@pytest.mark.parametrize(
    ("task", "splits", "changes", "words"),
    [
        ("vqa", [LABELS, LABELS], {}, ["data.train.format = own_labels", "image_classification"]),
        ("vqa", [QUESTIONS], {}, ["give dev or test"]),
        ("vqa", [VQAV2, QUESTIONS], {}, ["data.train names no labels"]),
        ("vqa", [QUESTIONS, QUESTIONS | {"answer_column": None}], {}, ["data.dev names no labels"]),
        ("sentences", [STSB, STSB], {}, ["numbers as labels", "task.scored_by=correlation"]),
        ("numbers", [RTE, RTE], {}, ["classes as labels", "task.scored_by=accuracy"]),
        ("retrieval", [CAPTIONS, CAPTIONS], {"published": {"test/mean_recall": 0.5}},
         ["test/mean_recall is not measured", "did you mean 'dev/mean_recall'"]),
        ("vqa", [QUESTIONS, QUESTIONS], {"published": {"dev/acuracy": 0.5}}, ["'dev/accuracy'"]),
        ("vqa", [QUESTIONS, QUESTIONS], {"published": {"dev/accuracy": 77.6}}, ["or equal to 1"]),
        ("vqa", [QUESTIONS, QUESTIONS], {"finetune": {"batch_size": 12}}, ["set substreams=6"]),
        ("vqa", [QUESTIONS, QUESTIONS], {"finetune": {"num_workers": 3}}, ["does not divide"]),
    ],
)  # fmt: skip
def test_a_recipe_whose_parts_do_not_agree_is_refused_with_what_to_set(
    task, splits, changes, words
):
    with pytest.raises(ValidationError) as error:
        recipe(TASKS[task], *splits, **changes)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("finetune", "words"),
    [({"micro_batch": 30}, "finetune.micro_batch = 30"), ({"batch_size": 40}, "substreams = 5")],
)
def test_images_that_are_mixed_need_whole_groups_in_a_batch(finetune, words):
    with pytest.raises(ValidationError, match=f"{words}.*groups of 4"):
        recipe(MIXED, LABELS, LABELS, finetune=finetune)


def test_changes_of_images_that_detection_does_not_make_are_refused():
    coco = {"format": "coco_instances", "annotations": "a.json", "images": "images"}
    recipe({"name": "detection"}, coco, coco, finetune={"augment": {"flip": False}})
    for change in ({"color_jitter": 0.4}, {"min_crop_scale": 0.2}):
        with pytest.raises(ValidationError, match=f"augment.{next(iter(change))} = .* no effect"):
            recipe({"name": "detection"}, coco, coco, finetune={"augment": change})


def test_a_test_split_needs_no_labels():
    recipe(TASKS["vqa"], QUESTIONS, QUESTIONS, VQAV2)
    recipe(TASKS["sentences"], RTE, RTE, RTE | {"file": "test.tsv"})


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_names_the_metrics_that_it_measures(kind):
    """Published values are compared with these names before anything is measured."""
    task, rows = task_of(kind), examples(kind, 12)
    found = []
    for row in rows.to_pylist():
        labels = row["labels"] if kind != "linear" else ["0", "1", "2"]
        found.append(
            {
                "labels": labels or ["x"],
                "scores": [float(labels[0]) if kind == "numbers" else 0.5] * (len(labels) or 1),
                "features": [[1.0, 0.0]] * (1 + len(row["texts"])) if kind == "retrieval" else [],
                "boxes": [thing["box"] for thing in row["objects"]] or [[0, 0, 1, 1]],
                "masks": [thing["mask"] for thing in row["objects"]] or ["0"],
                "size": row["size"],
                "label_map": row["label_map"] or ZEROS,
            }
        )
    measured = task.score(predictions(found), rows)
    names = {n for n in measured if not n.startswith("chance/")}
    # Captioning's published ones need Java, and are measured after the training; objects of some
    # sizes may not occur.
    if kind in ("captioning", "detection"):
        assert task.metric in names < set(task.metric_names)
    else:
        assert names == set(task.metric_names)


def made(folder: Path, num_rows: int, **numbers: float) -> Manifest:
    table = pa.table({"reason": pa.array(["x"] * num_rows, pa.string())})
    output = Output(num_rows, {"data": table})
    return commit_outputs(Store(folder), [output], numbers=numbers).manifest


@pytest.mark.parametrize(
    ("task", "num_rows", "numbers", "words"),
    [
        ("vqa", 40, None, ["finetune.batch_size = 128", "has 40 samples", "batch_size=40 or less"]),
        ("vqa", 40, {"num_samples": 30, "num_unused_examples": 10}, ["30 samples", "size=24"]),
        (
            "vqa",
            9,
            {"num_samples": 5, "num_unused_examples": 4},
            ["substreams = 8", "5 examples", "size=5 or less"],
        ),
        ("retrieval", 7, None, ["finetune.substreams = 8", "7 examples"]),
        ("retrieval", 30, {"num_samples": 90, "num_unused_examples": 0}, ["90 samples", "size=88"]),
        ("retrieval", 30, {"num_samples": 150, "num_unused_examples": 0}, []),
        ("retrieval", 30, None, []),
        ("vqa", 128, None, []),
    ],
)
def test_a_split_that_is_too_small_for_the_batch_is_refused(
    tmp_path, task, num_rows, numbers, words
):
    files = CAPTIONS if task == "retrieval" else QUESTIONS
    complete = {"prepare/train": made(tmp_path / "train", num_rows)}
    if numbers is not None:
        complete["labels"] = made(tmp_path / "labels", 1, **numbers)
    message = "\n".join(impossible(recipe(TASKS[task], files, files), complete))
    assert bool(message) == bool(words)
    for word in words:
        assert word in message


def test_nothing_is_refused_before_the_examples_are_known_or_if_nothing_is_trained(tmp_path):
    written = recipe(TASKS["vqa"], QUESTIONS, QUESTIONS)
    assert impossible(written, {}) == []
    untrained = recipe(TASKS["vqa"], QUESTIONS, QUESTIONS, finetune={"epochs": 0})
    assert impossible(untrained, {"prepare/train": made(tmp_path, 1)}) == []


def test_the_workflow_itself_refuses_what_is_impossible(tmp_path):
    workflow = build_finetuning(recipe(TASKS["vqa"], QUESTIONS, QUESTIONS))
    assert workflow.impossible({"prepare/train": made(tmp_path, 1)})


def test_a_plan_says_how_many_steps_the_epochs_are(tmp_path):
    written = recipe(TASKS["vqa"], QUESTIONS, OTHER_QUESTIONS)
    (line,) = implications(written, {"prepare/train": Estimate(rows=1280)}, {})
    assert line == "finetune: 100 steps of batch_size = 128 over about 1280 samples: 10 epochs"
    few, _ = implications(written, {"prepare/train": Estimate(rows=100)}, {})
    assert "finetune.batch_size = 128" in few and "has about 100 samples" in few
    *_, short = implications(written, {"prepare/train": Estimate(rows=13)}, {})
    assert "finetune: 1 step of batch_size" in short
    complete = {
        "prepare/train": made(tmp_path / "train", 1300),
        "labels": made(tmp_path / "labels", 1, num_samples=1280, num_unused_examples=20),
    }
    (line,) = implications(written, {"prepare/train": Estimate(rows=1300)}, complete)
    assert "over 1280 samples" in line
    assert list(implications(written, {"prepare/train": Estimate()}, {})) == []


def test_a_plan_says_that_a_scored_split_is_the_one_that_is_trained_on():
    written = recipe(TASKS["vqa"], QUESTIONS, QUESTIONS, OTHER_QUESTIONS)
    (line,) = implications(written, {"prepare/train": Estimate()}, {})
    assert line.startswith("data.dev is the same as data.train")


@pytest.mark.parametrize(
    ("task", "key", "text", "words"),
    [
        ("vqa", "answers", '{"answer": "net", "label": 3}\n', "label 3 of 'net', expected 0"),
        ("vqa", "answers", "net\nnet\n", "'net' stands in several lines"),
        ("dual", "class_names", "n01 a fish\n", "line 1: expected a label that stands once, a tab"),
    ],
)
def test_a_damaged_list_of_labels_is_known_before_work_starts(tmp_path, task, key, text, words):
    (tmp_path / "list").write_text(text)
    problem = task_of(task, **{key: str(tmp_path / "list")}).requires()
    assert problem is not None and problem.startswith(f"task.{key}: ") and words in problem
    assert task_of(task).requires() is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.train.file", "gone.jsonl", "data.train.file: gone.jsonl"),
        ("data.dev.images", "gone", "data.dev.images: gone"),
        ("task.class_names", "gone.tsv", "task.class_names: gone.tsv"),
        ("start_from", "gone.pth", "start_from: gone.pth"),
    ],
)
def test_a_missing_file_is_named_by_its_key(tmp_path, key, value, words):
    with pytest.raises(RecipeError, match=f"files are missing, nothing was run\n  {words}"):
        opened(tmp_path, f"{key}={value}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["network.image_size=33"], "start: start_from: network: image_size 33 is not a multiple"),
        (["text_tokenizer=OTHER"], "start: text_tokenizer: .*is another vocabulary than that"),
        (["task.class_names=WRONG"], "labels: task.class_names: "),
    ],
)
def test_what_a_stage_needs_is_said_before_it_runs(tmp_path, settings, words):
    (tmp_path / "wrong.tsv").write_text("no tab")
    (tmp_path / "other.model").write_bytes(vocabulary())
    files = {"WRONG": str(tmp_path / "wrong.tsv"), "OTHER": str(tmp_path / "other.model")}
    for name, path in files.items():
        settings = [each.replace(name, path) for each in settings]
    made = opened(tmp_path, *settings)
    with pytest.raises(RecipeError, match=words):
        made.workflow.check(made.workflow.plan(made.store))


def opened(tmp_path: Path, *settings: str) -> Any:
    """Open the recipe of a toy fine-tuning from its file."""
    finetuning.write_inputs(tmp_path / "inputs", 4, 2)
    written = finetuning.recipe(tmp_path / "inputs").model_dump(mode="json", exclude_unset=True)
    (tmp_path / "toy.yaml").write_text(json.dumps(written))
    return open_recipe(str(tmp_path / "toy.yaml"), str(tmp_path / "work"), settings, console)
