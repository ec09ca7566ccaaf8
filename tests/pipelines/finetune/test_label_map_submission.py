"""The files that ADE20K's evaluation server takes, from a test folder in the published form."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dataprep.schemas import EXAMPLES, PREDICTIONS
from dataprep.tasks.label_classes import read_classes
from dataprep.tasks.stored_label_maps import stored
from orchestration import Dataset
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.finetune import prepare
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.formats.label_folders import Ade20k
from pipelines.finetune.label_map_files import zip_of
from pipelines.finetune.score import write_scores
from tests.committing import commit_tables
from tests.in_process import run_in_process
from tests.pipelines.finetune.examples import task_of

HEADER = "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
FIRST = ("wall", "building, edifice", "sky", "floor, flooring", "tree")
NAMES = [*FIRST, *(f"class {i}" for i in range(len(FIRST) + 1, 151))]
SHADES = (0, 128, 255)
SHOWN = (149, 0, 4)
"Classes that the shades stand for: values 150, 1 and 5."
SIZES = {
    "ADE_test_00000001.jpg": (120, 64), "ADE_test_00000002.jpg": (64, 150),
    "gray ü.png": (90, 90), "sub/ADE_test_00000003.JPG": (1500, 1100), "wide.jpg": (1500, 3),
}  # fmt: skip
ROTATED = "turned.jpg"
ORIENTATION = 0x0112


def drawn(width: int, height: int) -> Image.Image:
    """Three columns of gray."""
    columns = np.arange(width) * len(SHADES) // width
    return Image.fromarray(np.repeat(np.array(SHADES, np.uint8)[columns][None], height, 0))


@pytest.fixture
def committed(tmp_path):
    def commit(table, name):
        return commit_tables(Store(tmp_path / name), [table], row_group_rows=2)

    return commit


@pytest.fixture
def folder(tmp_path):
    for name, size in SIZES.items():
        path = tmp_path / "testing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = drawn(*size)
        image.convert("L" if "gray" in name else "RGB").save(path, quality=95)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = drawn(120, 70).rotate(90, expand=True).convert("RGB")
    turned.save(tmp_path / "testing" / ROTATED, quality=95, exif=exif)
    (tmp_path / "testing/cut.jpg").write_bytes(
        (tmp_path / "testing/ADE_test_00000001.jpg").read_bytes()[:300]
    )
    rows = [f"{i}\t0.1\t9\t9\t0\t{name}\n" for i, name in enumerate(NAMES, start=1)]
    (tmp_path / "objectInfo150.txt").write_text(HEADER + "".join(rows))
    return tmp_path


class ByShade:
    """A network that knows the class of each pixel by its brightness."""

    class network:
        class config:
            image_size = 64

    def scores(self, images):
        shades = (images.mean(dim=1, keepdim=True) + 1) / 2 * 255
        scores = torch.full((len(images), len(NAMES), *images.shape[2:]), -1e3)
        for number, shade in zip(SHOWN, SHADES, strict=True):
            scores[:, number] = -(shades[:, 0] - shade).abs()
        return scores


def predicted(task, examples: pa.Table) -> pa.Table:
    table = []
    for i, name in enumerate(examples["example_id"].to_pylist()):
        batch = TaskBatch(
            np.array([i]), pixel_mean=torch.full((3,), 0.5), pixel_std=torch.full((3,), 0.5)
        )
        batch = task.dense_batch(batch, examples.slice(i, 1), {}, 64, None)
        (found,) = task.predict(ByShade(), batch.to(torch.device("cpu")), NAMES)
        table.append({"row": i, "example_id": name, **vars(found)})
    return pa.Table.from_pylist(table, PREDICTIONS)


def test_a_folder_of_test_images_becomes_a_zip_of_pngs_of_their_names_and_sizes(
    folder, committed, monkeypatch
):
    monkeypatch.setattr("pipelines.finetune.tasks.segmentation.ForSegmentation", ByShade)
    classes = str(folder / "objectInfo150.txt")
    source = Ade20k(format="ade20k", images=str(folder / "testing"), classes=classes)
    prepared = Store(folder / "prepared")
    needs = {"num_images": 1, "num_texts": (0, 0), "needs_labels": False}
    run_in_process(prepare.stage(source, split="test", **needs), prepared, {})
    examples = Dataset.open(prepared)
    task = task_of("segmentation", classes=classes)
    made = predicted(task, examples.read())
    scores = Store(folder / "scores")
    inputs = {"prepare_test": examples, "predict_test": committed(made, "predicted")}
    numbers, files = write_scores(scores, task, ["test"], inputs)
    assert numbers == {"test/num_examples": len(SIZES) + 1}
    assert files == ["score.json", "submission_test.zip"]
    with zipfile.ZipFile(io.BytesIO(scores.read(files[1]))) as archive:
        assert archive.testzip() is None
        found = {name: Image.open(archive.open(name)) for name in archive.namelist()}
    expected = {f"{name.rpartition('.')[0]}.png": size for name, size in SIZES.items()}
    expected["turned.png"] = (120, 70)  # upright, as the file says
    assert {name: image.size for name, image in found.items()} == expected
    for image in found.values():
        assert image.mode == "L"
        values = np.asarray(image)
        assert {*np.unique(values).tolist()} <= {150, 1, 5}
        thirds = np.arange(values.shape[1]) * 3 // values.shape[1]
        assert (values == np.array([150, 1, 5])[thirds][None]).mean() > 0.9


def one_row(labels: np.ndarray, names: list[str]) -> pa.Table:
    png, present = stored(labels, names)
    row = {"row": 0, "example_id": "a", "labels": present, "label_map": png}
    return pa.Table.from_pylist([row], PREDICTIONS)


def pixels_of(predictions: pa.Table, path) -> np.ndarray:
    data = zip_of(predictions, read_classes(path))
    assert data == zip_of(predictions, read_classes(path))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return np.asarray(Image.open(archive.open("a.png")))


def test_values_and_colors_of_an_own_list_are_those_of_its_label_maps(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    path, made = tmp_path / "classes.csv", one_row(labels, ["a", "b", "c"])
    path.write_text("name,value\na,7\n,0\nb,26\nc,11\n")
    assert (pixels_of(made, path) == np.array([7, 26, 11])[labels]).all()
    path.write_text("name,value\na,7000\n,0\nb,26\nc,11\n")
    assert (pixels_of(made, path) == np.array([7000, 26, 11])[labels]).all()
    path.write_text("name\na\nb\nc\n")
    assert (pixels_of(made, path) == labels).all()
    path.write_text("name,r,g,b\na,1,2,3\n,0,0,0\nb,250,0,9\nc,4,4,4\n")
    assert (pixels_of(made, path) == np.array([[1, 2, 3], [250, 0, 9], [4, 4, 4]])[labels]).all()


def test_the_list_decides_which_classes_there_are_and_in_which_order(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("name,value\nsky,2\nwall,1\nroof,3\n")
    task = task_of("segmentation", classes=str(path))
    assert task.requires() is None
    tables = {"train": pa.table({"labels": [["wall", "sky"]]})}
    assert task.label_names(tables) == ["sky", "wall", "roof"]
    with pytest.raises(
        ValueError, match=r"no pixel is of a class of .*; the first class .* is sea"
    ):
        task.label_names({"train": pa.table({"labels": [["sea"]]})})
    path.write_text("name,value\nsky,2\nsky,1\n")
    assert "several classes are named 'sky'" in str(task.requires())
    path.unlink()
    assert str(task.requires()).startswith("task.classes: ")


@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_a_predicted_class_that_cannot_be_submitted_is_named(kind, tmp_path, committed):
    """Weights of another data set are scored as they are."""
    path = tmp_path / "classes.txt"
    if kind == "segmentation":
        path.write_text("name\nwall\n")
        made = one_row(np.ones((4, 4), np.uint8), ["wall", "sea"])
        task = task_of(kind, classes=str(path))
    else:
        path.write_text('{"categories": [{"id": 3, "name": "wall"}]}')
        row = {
            "row": 0,
            "example_id": "a",
            "labels": ["sea"],
            "masks": [],
            "scores": [1],
            "boxes": [[0] * 4],
        }
        made = pa.Table.from_pylist([row], PREDICTIONS)
        task = task_of(kind, categories=str(path))
    empty = {"example_id": "a", "images": [], "labels": [], "objects": [], "label_map": None}
    inputs = {
        "predict_test": committed(made, "predicted"),
        "prepare_test": committed(pa.Table.from_pylist([empty], EXAMPLES), "prepared"),
    }
    with pytest.raises(StageError, match=r"submission of the split test: .*'sea'"):
        write_scores(Store(tmp_path / "score"), task, ["test"], inputs)
