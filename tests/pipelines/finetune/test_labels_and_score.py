"""Labels and scores of splits with, without and with unknown labels."""

import json

import numpy as np
import pytest
import torch

from orchestration import Stage
from orchestration.errors import StageError
from orchestration.params import StageParams
from orchestration.reporting.progress import StageProgress
from orchestration.storage.store import Store
from pipelines.finetune import caption_java, labels
from pipelines.finetune.labels import (
    LABELS_FILE,
    read_labels,
    read_samples,
    text_columns,
    unlisted,
    write_labels,
)
from pipelines.finetune.predicting import Evaluator, Predictor
from pipelines.finetune.score import write_scores
from tests.committing import commit_tables
from tests.in_process import run_in_process
from tests.pipelines.finetune.examples import (
    LABELS,
    TASKS,
    builder,
    examples,
    labelled,
    network_of,
    predictions,
    task_of,
)


@pytest.fixture
def committed(tmp_path):
    """Commits a table as a split."""

    def commit(table, name="split"):
        return commit_tables(Store(tmp_path / name), [table], row_group_rows=8)

    return commit


def labels_of(tmp_path, task, **splits):
    """What the stage writes: names of labels, samples of each row, numbers."""
    store = Store(tmp_path / "labels")
    numbers = write_labels(store, task, splits)
    files = {n: store.fetch(n).read_bytes() for n in ("labels.json", "samples.parquet")}
    again = commit_tables(
        Store(tmp_path / "again"), [labelled([["x"]])], row_group_rows=1, files=files
    )
    return read_labels(again), read_samples(again).tolist(), numbers


@pytest.mark.parametrize("kind", TASKS)
def test_labels_and_samples_are_written_and_read_again(kind, tmp_path, committed):
    table = examples(kind, 20)
    names, samples, numbers = labels_of(tmp_path, task_of(kind), train=committed(table))
    if kind == "vqa":
        assert set(names) <= {*LABELS[kind], "unlisted"} and len(names) > 2
    else:
        assert names == sorted(LABELS[kind])
    by_text = task_of(kind).by_text
    counts = [len(some) for some in table["texts"].to_pylist()] if by_text else [1] * 20
    if task_of(kind).is_dense:  # images with an object or a label map
        counts = [int(bool(some)) for some in table["labels"].to_pylist()]
    assert samples == counts
    assert numbers == {
        "num_labels": len(names), "num_samples": sum(counts),
        "num_unused_examples": counts.count(0),
    }  # fmt: skip


def test_false_is_0_and_true_is_1_whichever_comes_first(tmp_path, committed):
    train = committed(labelled([["True"], ["True"], ["False"]]))
    names, *_ = labels_of(tmp_path, task_of("nlvr2"), train=train)
    assert names == ["False", "True"]
    targets = task_of("nlvr2").targets(labelled([["True"], ["False"]]), {"False": 0, "True": 1})
    assert targets.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["dual", "linear", "nlvr2", "sentences", "numbers"])
def test_a_training_example_without_label_is_left_out(kind, tmp_path, committed):
    """No target that is none reaches the loss."""
    task, train = task_of(kind), labelled([["1"], [], ["2"], [], ["1"]])
    names, samples, numbers = labels_of(tmp_path, task, train=committed(train))
    assert samples == [1, 0, 1, 0, 1] and numbers["num_unused_examples"] == 2
    known = {name: i for i, name in enumerate(names)}
    used = train.take(np.flatnonzero(samples))
    assert min(task.targets(used, known).tolist()) >= 0


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("dual", [["a"], ["a"]], r"has the labels \['a'\]; at least two"),
        ("nlvr2", [[], []], r"has the labels \[\]; at least two"),
        ("dual", [["a"], ["a", "b"]], "example 1 of the split train has 2 labels"),
        ("numbers", [["1.5"], ["good"]], "example 1 .* the label 'good', which is no number"),
        ("numbers", [["1.5"], ["nan"]], "'nan', which is no number"),
        ("numbers", [[], []], "none of the 2 examples"),
        ("vqa", [[], []], "no answer occurs 1 times"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(kind, labels, message, tmp_path, committed):
    with pytest.raises(StageError, match=message):
        labels_of(tmp_path, task_of(kind), train=committed(labelled(labels)))


def test_two_labels_are_needed_for_f1_and_matthews(tmp_path, committed):
    train = committed(labelled([["a"], ["b"], ["c"]]))
    for scored_by in ("accuracy_and_f1", "matthews"):
        with pytest.raises(StageError, match="needs two labels, the split train has 3"):
            labels_of(tmp_path, task_of("sentences", scored_by=scored_by), train=train)


@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind != "retrieval"])
def test_a_dev_split_without_labels_is_refused_before_the_training(kind, tmp_path, committed):
    splits = {"train": committed(examples(kind, 12)), "dev": committed(labelled([[], []]), "dev")}
    with pytest.raises(StageError, match=r"the split dev has no (label|caption|object|label map),"):
        labels_of(tmp_path, task_of(kind), **splits)


@pytest.mark.parametrize("kind", TASKS)
def test_the_scores_of_a_trained_network_are_those_of_its_predictions(
    kind, tmp_path, committed, monkeypatch
):
    """An evaluation while training and the stages predict and score; dev has an unknown label."""
    monkeypatch.setattr(caption_java, "meteor", lambda *_: 0.5)  # it takes ten seconds
    built, table = builder(kind), examples(kind, 14)
    if built.task.needs_labels and kind != "numbers":
        rows = table.to_pylist()
        rows[3]["labels"], rows[5]["labels"] = ["z"] * len(rows[3]["labels"]), []
        table = type(table).from_pylist(rows, table.schema)
    dataset, network = committed(table), network_of(built).float()
    predictor = Predictor(built.task, built, list(built.numbers), dataset, 4)
    evaluated = Evaluator(predictor, 0, 1)(network, torch.autocast("cpu", enabled=False))
    assert built.task.metric in evaluated
    autocast = torch.autocast("cpu", enabled=False)
    rows = list(predictor(network, np.arange(14), autocast))
    assert [row["row"] for row in rows] == list(range(14))
    predicted = committed(predictions(rows), "predicted")
    folder = Store(tmp_path / "score")
    inputs = {"predict_dev": predicted, "prepare_dev": dataset}
    numbers, files = write_scores(folder, built.task, ["dev"], inputs)
    assert numbers.pop("dev/num_examples") == 14
    numbers = {name: value for name, value in numbers.items() if name[4:] in evaluated}
    assert numbers == pytest.approx({f"dev/{name}": value for name, value in evaluated.items()})
    assert all(np.isfinite(list(numbers.values())))
    assert json.loads(folder.fetch("score.json").read_bytes()).keys() >= numbers.keys()
    assert ("submission_dev.json" in files) == (kind in ("vqa", "captioning"))


@pytest.mark.parametrize("kind", ["numbers", "several labels"])
def test_a_metric_of_predictions_that_are_no_numbers_is_named(kind, tmp_path, committed):
    best = [{"labels": ["1"], "scores": [value]} for value in (float("nan"), 0.5, 0.7)]
    inputs = {
        "predict_test": committed(predictions(best), "predicted"),
        "prepare_test": committed(labelled([["1"], ["2"], ["1"]])),
    }
    with pytest.raises(StageError, match=r"of the split test is no number.*predict\.precision"):
        write_scores(Store(tmp_path / "score"), task_of(kind), ["test"], inputs)


@pytest.mark.parametrize("kind", ["vqa", "nlvr2", "dual", "numbers"])
def test_a_split_without_labels_has_a_submission_and_no_metrics(kind, tmp_path, committed):
    best = [{"labels": ["red"], "scores": [0.5]}, {"labels": ["2"], "scores": [0.1]}]
    inputs = {
        "predict_test": committed(predictions(best), "predicted"),
        "prepare_test": committed(labelled([[], []])),
    }
    folder = Store(tmp_path / "score")
    numbers, files = write_scores(folder, task_of(kind), ["test"], inputs)
    assert (
        numbers == {"test/num_examples": 2} == json.loads(folder.fetch("score.json").read_bytes())
    )
    assert files == ["score.json", *(["submission_test.json"] if kind == "vqa" else [])]
    if kind == "vqa":
        assert [row["answer"] for row in json.loads(folder.fetch(files[1]).read_bytes())] == [
            "red",
            "2",
        ]


@pytest.mark.parametrize(
    ("kind", "annotated", "expected"),
    [
        ("linear", ["b", "d"], ["d", "a", "b"]),
        ("linear", ["a", "a"], ["d", "a", "b"]),
        ("vqa", ["b", "other"], ["d", "a", "b"]),
        ("nlvr2", [], ["d", "a", "b"]),
        ("sentences", ["x", "y"], ["x", "y"]),
        ("numbers", ["1", "2"], []),
        ("retrieval", ["", ""], []),
    ],
)
def test_weights_that_are_not_trained_score_the_labels_that_they_were_trained_for(
    kind, annotated, expected, tmp_path, committed
):
    """An evaluation set has fewer labels than the head, or has them in another order."""
    if kind in ("numbers", "retrieval"):
        files = {}
    else:
        files = {"labels.json": json.dumps(["d", "a", "b"]).encode()}
    given = commit_tables(Store(tmp_path / "start"), [], row_group_rows=1, files=files)
    dev = committed(labelled([[label] for label in annotated] or [[], []]))
    store = Store(tmp_path / "labels")
    write_labels(store, task_of(kind), {"train": dev}, given)
    assert json.loads(store.read("labels.json")) == expected


def test_the_examples_without_images_keep_their_order(committed):
    table = examples("nlvr2", 11)
    found = text_columns(committed(table), task_of("nlvr2"))
    assert found.column_names == ["example_id", "texts", "labels", "main_label"]
    assert found["example_id"].to_pylist() == table["example_id"].to_pylist()


@pytest.mark.parametrize(
    ("kind", "truth"), [("detection", "objects"), ("segmentation", "label maps")]
)
def test_classes_that_a_network_does_not_choose_from_are_told(tmp_path, kind, truth):
    """A list of classes may spell a name otherwise than the examples do."""
    given = {
        "train": [["horse", "Horse", "horse"], ["cat"], []],
        "dev": [["dog", "cow", "Horse", "pig", "dog"]],
    }
    splits = {
        split: commit_tables(Store(tmp_path / split), [labelled(some)], row_group_rows=8)
        for split, some in given.items()
    }
    folder = Store(tmp_path / "labels")
    folder.write_bytes(LABELS_FILE, json.dumps(["Horse", "cat"]).encode())
    assert unlisted(folder, task_of(kind), splits) == [
        f"train has {truth} of 1 class that the network does not choose from, which are not "
        "trained on: 'horse' (2)",
        f"dev has {truth} of 3 classes that the network does not choose from, which are counted "
        "as missed: 'dog' (2), 'cow' (1), 'pig' (1)",
    ]
    folder.write_bytes(LABELS_FILE, json.dumps(["Horse", "cat", "dog", "horse"]).encode())
    (line,) = unlisted(folder, task_of(kind), splits)
    assert line.endswith("of 2 classes that the network does not choose from, which are counted "
                         "as missed: 'cow' (1), 'pig' (1)")  # fmt: skip


def test_a_split_in_place_of_that_of_training_is_called_by_its_name(tmp_path, monkeypatch):
    """An evaluation of given weights may have a test split alone."""
    remarks: list[str] = []
    monkeypatch.setattr(StageProgress, "remark", lambda _, text: remarks.append(text))
    table = examples("detection", 7)
    test = commit_tables(Store(tmp_path / "test"), [table], row_group_rows=8)
    head = {LABELS_FILE: b'["ring"]'}
    given = commit_tables(Store(tmp_path / "start"), [], row_group_rows=1, files=head)
    before = {
        name: Stage(name, lambda context: None, StageParams()) for name in ("prepare/test", "start")
    }
    stage = labels.stage(
        task_of("detection"), train=before["prepare/test"], dev=None, untrained=before["start"]
    )
    folders = {"prepare/test": test.folder, "start": given.folder}
    run_in_process(stage, Store(tmp_path / "labels/0123456789abcdef"), folders)
    number = sum(some.count("circle") for some in table["labels"].to_pylist())
    assert number and remarks == [
        "test has objects of 1 class that the network does not choose from, which are counted "
        f"as missed: 'circle' ({number})"
    ]
