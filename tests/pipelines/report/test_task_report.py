"""The page of predictions: what is chosen, what is right, hostile text, and its size."""

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dataprep.images import decode_stored, encode_jpeg
from dataprep.tasks.stored_label_maps import stored
from orchestration import Stage
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.finetune.score import MISSING, SCORE_FILE
from pipelines.finetune.task import Task
from pipelines.finetune.tasks.captioning import Captioning
from pipelines.finetune.tasks.detection import Detection
from pipelines.finetune.tasks.image_classification import ImageClassification
from pipelines.finetune.tasks.nlvr2 import VisualReasoning
from pipelines.finetune.tasks.retrieval import Retrieval
from pipelines.finetune.tasks.segmentation import Segmentation
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.finetune.tasks.vqa import VisualQuestionAnswering
from pipelines.report import task_report
from pipelines.report.nearest import NUM_NEAREST, NUM_QUERIES, nearest
from pipelines.report.predicted import NUM_SHOWN, predicted
from tests.committing import commit_outputs
from tests.in_process import run_in_process
from tests.pipelines.finetune.predicted_splits import commit_examples, commit_predictions, jpeg

HOSTILE = "<script>alert('x')</script>"
MOST_BYTES = 2_000_000
VQA = VisualQuestionAnswering(name="vqa")
GLUE = TextClassification(name="text_classification")
STSB = TextClassification(name="text_classification", scored_by="correlation")


def labeled(number: int, num_images: int = 0, given: int = 1) -> tuple[list[dict], list[dict]]:
    """Examples and predictions; those with an even number are right."""
    examples = [
        {
            "example_id": f"e{i}",
            "images": [jpeg(i * 2 + k, 300, 400) for k in range(num_images)],
            "texts": [f"{HOSTILE} {i}", "second " * 200],
            "labels": ["yes"] * given,
        }
        for i in range(number)
    ]
    found = [
        {
            "example_id": f"e{i}",
            "labels": ["yes", "no"] if i % 2 == 0 else ["no", "yes"],
            "scores": [0.75, 0.25],
        }
        for i in range(number)
    ]
    return examples, found


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch):
    monkeypatch.setattr("orchestration.reporting.run_log.RunLog.artifact", lambda *_: None)


def committed(folder: Store, examples: list[dict], found: list[dict]):
    return commit_predictions(folder.sub("predict"), found), commit_examples(
        folder.sub("prepare"), examples
    )


def nothing(name: str) -> Stage:
    return Stage(name, lambda context: None, StageParams())


def page_of(
    task: Task,
    store: Store,
    splits: dict[str, tuple[list[dict], list[dict]]],
    missing: dict[str, str] | None = None,
    tables: dict[str, bytes] | None = None,
) -> str:
    """The page that the stage writes."""
    files = {SCORE_FILE: json.dumps({MISSING: missing}).encode()} if missing else {}
    files |= tables or {}
    inputs = {}
    numbers = {"dev/accuracy": 0.625, "dev/chance/accuracy": 0.5, "published/dev/accuracy": 0.7765}
    inputs["score"] = commit_outputs(store.sub("score"), [], numbers=numbers, files=files).folder
    for split, rows in splits.items():
        predictions, examples = committed(store.sub(split), *rows)
        inputs |= {f"predict/{split}": predictions.folder, f"prepare/{split}": examples.folder}
    stage = task_report.stage(
        task,
        score=nothing("score"),
        predictions={split: nothing(f"predict/{split}") for split in splits},
        examples={split: nothing(f"prepare/{split}") for split in splits},
    )
    folder = store.sub("task_report/0123456789abcdef")
    run_in_process(stage, folder, inputs)
    return folder.read(task_report.HTML_FILE).decode()


class Tags(HTMLParser):
    """Collects tags and their addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def check(page: str) -> list[np.ndarray]:
    """A page holds all it shows and no foreign tag; return the pixels of its images."""
    tags = Tags(page)
    assert "script" not in tags.tags
    assert len(page) < MOST_BYTES
    assert all(a.startswith("data:image/jpeg;base64,") for a in tags.addresses)
    return [decode_stored(base64.b64decode(a.partition(",")[2])) for a in tags.addresses]


@pytest.mark.parametrize(
    ("task", "num_images", "given"),
    [
        (VQA, 1, 10),
        (VisualReasoning(name="nlvr2"), 2, 1),
        (ImageClassification(name="image_classification"), 1, 1),
        (GLUE, 0, 1),
    ],
    ids=["vqa", "nlvr2", "image_classification", "text_classification"],
)
def test_the_page_shows_right_and_wrong_examples_of_each_split(tmp_path, task, num_images, given):
    rows = labeled(40, num_images, given)
    page = page_of(task, Store(tmp_path), {"dev": rows, "test": labeled(3, num_images, given)})
    pixels = check(page)
    shown = 2 * NUM_SHOWN + 3
    assert len(pixels) == shown * num_images
    assert all(max(p.shape) == 128 for p in pixels)
    assert len(re.findall(r"second second", page)) >= shown
    assert page.count("<h3>right</h3>") == page.count("<h3>wrong</h3>") == 2
    assert "0.6250" in page and "0.5000" in page and "0.7765" in page
    assert ("yes ×10" in page) == (given == 10)


def test_what_is_chosen_depends_on_ids_alone(tmp_path):
    """Not on the order of the rows, nor on the first ones."""
    examples, found = labeled(200)
    order = list(range(200))
    random.Random(5).shuffle(order)
    one = predicted(GLUE, *committed(Store(tmp_path / "a"), examples, found))
    shuffled = [examples[i] for i in order], [found[i] for i in order]
    other = predicted(GLUE, *committed(Store(tmp_path / "b"), *shuffled))
    by_hash = sorted(range(200), key=lambda i: hashlib.sha256(f"e{i}".encode()).hexdigest())
    for title, remainder in (("right", 0), ("wrong", 1)):
        expected = [f"e{i}" for i in by_hash if i % 2 == remainder][:NUM_SHOWN]
        assert [e.id for e in one.groups[title]] == [e.id for e in other.groups[title]] == expected


@pytest.mark.parametrize(
    ("task", "label", "given", "is_right"),
    [
        (GLUE, "1", ["1"], True),
        (GLUE, "1", ["0"], False),
        (STSB, "3.214", ["3.2"], None),
        (VQA, "red", ["red"] * 2 + ["blue"] * 8, True),
        (VQA, "red", ["red"] + ["blue"] * 9, False),
        (VQA, "red", ["red"], True),  # own data with one answer
        (ImageClassification(name="image_classification"), "cat", ["cat"], True),
    ],
)
def test_a_task_says_which_predictions_are_right(task, label, given, is_right):
    assert task.is_right(label, given) is is_right


@pytest.mark.parametrize("task", [GLUE, STSB])
def test_a_split_without_right_and_wrong_shows_what_was_predicted(tmp_path, task):
    examples, found = labeled(20)
    for example, prediction in zip(examples, found, strict=True):
        example["labels"] = ["2.5"] if task is STSB else []
        prediction |= {"labels": ["3.125"], "scores": [3.125]}
    chosen = predicted(task, *committed(Store(tmp_path), examples, found))
    assert list(chosen.groups) == ["predicted"]
    assert len(chosen) == NUM_SHOWN


def retrieval(number: int, seed: int = 0) -> tuple[list[dict], list[dict]]:
    draw = np.random.default_rng(seed)
    counts = draw.integers(1, 4, number)
    examples = [
        {
            "example_id": f"e{i}",
            "images": [jpeg(i, 300, 400)],
            "texts": [f"{HOSTILE} {i} {k}" for k in range(counts[i])],
        }
        for i in range(number)
    ]
    found = [
        {"example_id": f"e{i}", "features": draw.standard_normal((counts[i] + 1, 4)).tolist()}
        for i in range(number)
    ]
    return examples, found


@pytest.mark.parametrize("number", [1, 3, 40])
def test_neighbors_equal_a_plain_ranking(tmp_path, number):
    examples, found = retrieval(number)
    result = nearest(*committed(Store(tmp_path), examples, found))
    assert result is not None
    images = np.array([f["features"][0] for f in found], np.float32)
    texts = [(text, i) for i, example in enumerate(examples) for text in example["texts"]]
    features = np.array([t for f in found for t in f["features"][1:]], np.float32)
    assert len(result.captions) == len(result.images) == min(number, NUM_QUERIES)
    numbers = {text: i for i, (text, _) in enumerate(texts)}
    for query in result.captions:
        text = numbers[query.content]
        scores = images @ features[text]
        order = sorted(range(number), key=lambda i: -scores[i])
        assert query.rank == order.index(texts[text][1]) + 1
        assert [f.is_own for f in query.found] == [i == texts[text][1] for i in order][:NUM_NEAREST]
        expected = [scores[i] for i in order][:NUM_NEAREST]
        assert [f.score for f in query.found] == pytest.approx(expected, rel=1e-5)
    for query in result.images:
        own = {texts[numbers[f.content]][1] for f in query.found if f.is_own}
        assert len(own) <= 1
        assert (query.rank <= NUM_NEAREST) == bool(own)


def test_the_page_of_retrieval_shows_both_directions(tmp_path):
    rows = retrieval(30)
    page = page_of(Retrieval(name="retrieval"), Store(tmp_path), {"dev": rows})
    assert len(check(page)) == NUM_QUERIES * (NUM_NEAREST + 1)
    assert page.count("Its image is number") == NUM_QUERIES


def test_the_page_of_captioning_shows_generated_captions_and_those_of_annotators(tmp_path):
    examples, found = labeled(30, 1)
    for i, (example, prediction) in enumerate(zip(examples, found, strict=True)):
        example |= {"labels": ["near-domain"], "texts": [f"annotated {i}", HOSTILE]}
        prediction |= {"labels": [f"generated {i}", f"second {i}"], "scores": [-0.25, -0.5]}
    missing = {"dev/meteor": "java is not on the PATH", "dev/x": HOSTILE}
    task = Captioning(name="captioning")
    page = page_of(task, Store(tmp_path), {"dev": (examples, found)}, missing)
    assert len(check(page)) == NUM_SHOWN
    shown = re.findall(r"generated (\d+)", page)
    assert len(shown) == NUM_SHOWN and shown == re.findall(r"annotated (\d+)", page)
    assert page.count("second ") == page.count("by the annotators") == NUM_SHOWN
    assert page.count("-0.250") == page.count("near-domain") == NUM_SHOWN
    assert "dev/meteor is left out: java is not on the PATH" in page
    assert "<h3>right</h3>" not in page


def test_the_page_of_segmentation_shows_label_maps_over_images_and_confused_classes(tmp_path):
    names = [f"{HOSTILE} left", "right", "rare"]
    maps = [np.zeros((300, 400), np.uint8), np.zeros((300, 400), np.uint8)]
    maps[0][:, 200:] = 1
    maps[1][:, 300:] = 1
    maps[0][:30] = 255
    (true, given), (found, labels) = (stored(each, names) for each in maps)
    gray = encode_jpeg(np.full((300, 400, 3), 128, np.uint8), 95)
    examples = [
        {"example_id": f"e{i}", "images": [gray], "labels": given, "label_map": true}
        for i in range(30)
    ]
    predictions = [
        {"example_id": f"e{i}", "labels": labels, "scores": [0.75, 0.25], "label_map": found}
        for i in range(30)
    ]
    task = Segmentation(name="segmentation")
    rows = commit_predictions(Store(tmp_path / "p"), predictions).read()
    table = commit_examples(Store(tmp_path / "e"), examples).read()
    tables = {f"{name[:-4]}_dev.csv": data for name, data in task.score_files(rows, table).items()}
    page = page_of(task, Store(tmp_path / "page"), {"dev": (examples, predictions)}, None, tables)
    pixels = check(page)
    assert len(pixels) == 2 * NUM_SHOWN
    for truth, shown in zip(pixels[::2], pixels[1::2], strict=True):
        height, width = truth.shape[:2]
        assert abs(int(truth[4, 4].max()) - 128) < 12, "what is of no class stays as it is"
        left, middle, right = (int(f * width) for f in (0.1, 0.65, 0.95))
        low = int(0.9 * height)
        points = [each[low, x] for each in (truth, shown) for x in (left, right)]
        assert min(np.ptp(point.astype(int)) for point in points) > 20
        assert np.abs(truth[low, middle].astype(int) - shown[low, middle]).max() > 20
        assert np.abs(truth[low, left].astype(int) - shown[low, left]).max() < 12
    (row,) = re.findall(r"<tr><td>right</td>(.*?)</tr>", page)
    numbers = re.findall(r"<td class=\"n\">([\d.]+)</td>", row)
    assert [float(n) for n in numbers] == pytest.approx([0.5, 0.5, 0.5], abs=1e-4)
    assert row.endswith("left 0.5000</td>") and "rare" not in page


def test_the_page_of_detection_shows_objects_and_the_classes_by_their_precision(tmp_path):
    gray = encode_jpeg(np.full((300, 400, 3), 128, np.uint8), 95)
    thing = {"id": 1, "box": [40, 30, 200, 150], "area": 1.0, "is_crowd": False, "mask": ""}
    examples = [
        {"example_id": f"{i}", "images": [gray], "labels": [HOSTILE], "objects": [thing],
         "size": [400, 300]} for i in range(9)
    ]  # fmt: skip
    found = [
        {"example_id": f"{i}", "labels": [HOSTILE], "scores": [0.75],
         "boxes": [[200, 100, 150, 150]], "size": [400, 300]} for i in range(9)
    ]  # fmt: skip
    table = b'class,box_AP,mask_AP,objects\n"a, b",0.25,,7\nbest,0.5,0.125,9\n'
    task = Detection(name="detection")
    tables = {"classes_dev.csv": table}
    page = page_of(task, Store(tmp_path), {"dev": (examples, found)}, None, tables)
    pixels = check(page)
    assert len(pixels) == 2 * NUM_SHOWN
    for truth, shown in zip(pixels[::2], pixels[1::2], strict=True):
        scale = truth.shape[1] / 400
        place = int(105 * scale), int(40 * scale)  # on the left side of the annotated box
        assert np.ptp(truth[place].astype(int)) > 40 > np.ptp(shown[place].astype(int))
    rows = re.findall(r"<tr><td>(.*?)</td><td class=\"n\">(.*?)</td><td class=\"n\">(.*?)</td>"
                      r"<td class=\"n\">(\d+)</td></tr>", page)  # fmt: skip
    assert rows == [("best", "0.5000", "0.1250", "9"), ("a, b", "0.2500", "", "7")]


def test_a_split_of_no_examples_has_a_page(tmp_path):
    for task in (GLUE, Retrieval(name="retrieval")):
        page = page_of(task, Store(tmp_path / task.name), {"dev": ([], [])})
        assert "There are no examples." in page
