"""Folders of boxes, masks and label maps as strangers leave them: each file ends once, and what is
kept can be trained on, predicted and scored."""

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import decode

from dataprep.schemas import PREDICTIONS
from dataprep.tasks.label_classes import IGNORED
from dataprep.tasks.run_lengths import mask_of
from dataprep.tasks.stored_label_maps import restored
from orchestration import Dataset
from orchestration.storage.store import Store
from pipelines.finetune import prepare
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.formats.coco_instances import CocoInstances
from pipelines.finetune.formats.format import TaskFormat
from pipelines.finetune.formats.label_folders import Ade20k
from pipelines.finetune.predicting import Predictor
from pipelines.finetune.task import Task
from pipelines.finetune.texts import TextEncoder
from pipelines.finetune.views import AugmentParams
from tests.in_process import run_in_process
from tests.model.networks import RELEASED
from tests.pipelines.finetune.examples import network_of, task_of, text_tokenizer

NEEDS = {"num_images": 1, "num_texts": (0, 0), "needs_labels": False}
ORIENTATION = 0x0112
SIZES = {
    "plain.jpg": (60, 40), "one.png": (1, 1), "wide.jpg": (10000, 10), "tall.png": (10, 10000),
    "sp ace ü.jpg": (50, 50), "deep.png": (30, 30), "pal.png": (30, 30), "a.b.JPG": (33, 21),
}  # fmt: skip
"Images that are good, whatever they look like."


def draw(folder: Path, name: str, size: tuple[int, int], orientation: int = 1) -> None:
    width, height = size
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(pixels).convert("P" if name == "pal.png" else "RGB")
    if name == "deep.png":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    image.save(folder / name, exif=exif)


def drawn_images(folder: Path) -> Path:
    folder.mkdir()
    for name, size in SIZES.items():
        draw(folder, name, size)
    draw(folder, "turned.jpg", (60, 40), orientation=6)
    (folder / "cut.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:300])
    (folder / "broken.jpg").symlink_to("/nowhere/broken.jpg")
    return folder


def prepared(
    folder: Path, source: TaskFormat
) -> tuple[Dataset, dict[str, dict], dict[str, tuple[str, str]]]:
    """Return the split, its rows by id, and the reason and detail of each reject."""
    store = Store(folder / "prepared")
    run_in_process(prepare.stage(source, split="train", **NEEDS), store, {})
    rows = {row["example_id"]: row for row in Dataset.open(store).read().to_pylist()}
    rejects = Dataset.open(store, "rejects").read().to_pylist()
    found = {r["sample_id"].removeprefix("train/"): (r["reason"], r["detail"]) for r in rejects}
    assert len(rejects) == len(found) and not rows.keys() & found.keys()
    return Dataset.open(store), rows, found


def check_usable(task: Task, split: Dataset) -> pa.Table:
    """Train on every example, predict and score; return the predictions."""
    rows = split.read()
    names = task.label_names({"train": rows})
    config = replace(RELEASED, image_size=64)
    built = ExampleBuilder(task, config, TextEncoder(text_tokenizer(), 8), names)
    network, everything = network_of(built).float(), np.arange(len(rows))
    build = built.training(AugmentParams(), 0.1, seed=3)
    for step in range(2):
        batch = build(rows, everything, step, everything, np.zeros(len(rows), int))
        losses = task.losses(network, batch.to(torch.device("cpu")))
        assert all(torch.isfinite(loss).all() for loss in losses.values())
        losses["loss"].backward()
    predictor = Predictor(task, built, names, split, 4)
    exact = torch.autocast("cpu", enabled=False)
    found = pa.Table.from_pylist(list(predictor(network, everything, exact)), PREDICTIONS)
    metrics, _ = task.full_score(found, rows)
    assert all(np.isfinite(list(metrics.values())))
    assert [row["size"] for row in found.to_pylist()] == rows["size"].to_pylist()
    return found


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """A file in COCO's form in which each image has a polygon, a crowd and a splinter."""
    root = tmp_path_factory.mktemp("objects")
    images = drawn_images(root / "images")
    draw(root, "secret.jpg", (60, 40))
    sizes = SIZES | dict.fromkeys(
        ["cut.jpg", "turned.jpg", "../secret.jpg", str(root / "secret.jpg"), "missing.jpg",
         "broken.jpg", "a\0b.jpg", "\ud800.jpg", "n" * 300], (60, 40),
    )  # fmt: skip
    listed = [
        {"id": i, "file_name": name, "width": width, "height": height}
        for i, (name, (width, height)) in enumerate(sizes.items())
    ]
    listed.append({"id": 99, "file_name": "turned.jpg", "width": 40, "height": 60})
    annotations = []
    for image in listed:
        number, width, height = 3 * image["id"], image["width"], image["height"]
        whole = {"image_id": image["id"], "category_id": 7, "bbox": [0, 0, width, height]}
        splinter = [width / 2, height / 2, 1e-5, height / 2]
        annotations += [
            whole | {"id": number, "area": 1, "iscrowd": 0,
                     "segmentation": [[0, 0, width, 0, width, height, 0, height]]},
            whole | {"id": number + 1, "category_id": 90, "area": 1, "iscrowd": 1,
                     "segmentation": {"size": [height, width], "counts": [0, width * height]}},
            whole | {"id": number + 2, "bbox": splinter, "area": 1, "iscrowd": 0},
        ]  # fmt: skip
    categories = [{"id": 90, "name": "q"}, {"id": 7, "name": "p"}, {"id": 3, "name": "never"}]
    path = root / "instances.json"
    path.write_text(json.dumps(
        {"images": listed, "annotations": annotations, "categories": categories}
    ))  # fmt: skip
    source = CocoInstances(format="coco_instances", annotations=str(path), images=str(images))
    return path, *prepared(root, source)


def test_images_of_objects_end_once_and_no_file_outside_of_the_folder_is_read(objects):
    path, _, rows, rejects = objects
    names = {
        str(entry["id"]): entry["file_name"] for entry in json.loads(path.read_text())["images"]
    }
    assert {names[id_] for id_ in rows} == {*SIZES, "turned.jpg"} and "99" in rows
    reasons = {names[id_].rpartition("/")[2]: reason for id_, (reason, _) in rejects.items()}
    assert reasons == {
        "cut.jpg": "undecodable", "turned.jpg": "image_size", "secret.jpg": "missing_file",
        "missing.jpg": "missing_file", "broken.jpg": "linked_file", "a\0b.jpg": "missing_file",
        "\ud800.jpg": "missing_file", "n" * 300: "damaged_file",
    }  # fmt: skip
    (turned,) = [detail for reason, detail in rejects.values() if reason == "image_size"]
    assert turned.endswith(
        "40 x 60 pixels, the file states 60 x 40; its EXIF orientation may turn it"
    )


def test_objects_that_are_kept_are_those_of_pycocotools(objects):
    path, _, rows, _ = objects
    theirs = COCO(str(path))
    for id_, row in rows.items():
        given = theirs.imgToAnns[int(id_)]
        assert [thing["id"] for thing in row["objects"]] == [each["id"] for each in given]
        assert row["labels"] == [theirs.cats[each["category_id"]]["name"] for each in given]
        for thing, each in zip(row["objects"], given, strict=True):
            np.testing.assert_allclose(thing["box"], each["bbox"], rtol=1e-5, atol=1e-9)
            assert thing["is_crowd"] == bool(each["iscrowd"])
            if "segmentation" in each:
                assert (mask_of(thing["mask"], *row["size"]) == theirs.annToMask(each)).all()


@pytest.mark.parametrize("changes", [{}, {"test_sizes": (32, 64), "test_flip": True}])
def test_strange_images_with_objects_are_trained_on_and_found(objects, changes):
    path, split, rows, _ = objects
    task = task_of("detection", categories=str(path), **changes)
    made = check_usable(task, split)
    results = json.loads(task.submission(made))
    theirs = COCO(str(path)).loadRes(results)
    assert {str(each) for each in theirs.imgToAnns} <= {*rows}
    for each in results:
        height, width = each["segmentation"]["size"]
        assert [width, height] == rows[str(each["image_id"])]["size"]
        assert decode(each["segmentation"]).shape == (height, width)
        x, y, across, down = each["bbox"]
        assert (
            min(x, y, across, down) >= 0 and x + across < width + 0.02 and y + down < height + 0.02
        )


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory):
    """ADE20K's folders, with a map of each kind of fault."""
    root = tmp_path_factory.mktemp("maps")
    images, masks = drawn_images(root / "images"), root / "masks"
    masks.mkdir()
    for name, (width, height) in SIZES.items():
        values = np.random.default_rng(height).integers(0, 4, (height, width)).astype(np.uint8)
        Image.fromarray(values | 1).save(masks / f"{name.rpartition('.')[0]}.png")
    ones, plain = np.ones((40, 60), np.uint8), images / "plain.jpg"
    palette = Image.fromarray(ones + 1).convert("P")
    palette.putdata((ones + 1).ravel().tolist())
    palette.putpalette([9] * 768)
    maps = {
        "map16": ones.astype(np.uint16) * 3, "palette": palette, "beyond": ones * 4,
        "beyond16": ones.astype(np.uint16) * 300, "of 255": ones * 255, "ignored": ones * 0,
        "other size": ones[1:], "rgb": np.stack([ones] * 3, axis=2), "cut": ones, "broken": ones,
    }  # fmt: skip
    for name, values in maps.items():
        image = values if isinstance(values, Image.Image) else Image.fromarray(values)
        image.save(masks / f"{name}.png")
        if name not in ("cut", "broken"):
            (images / f"{name}.jpg").write_bytes(plain.read_bytes())
    Image.fromarray(ones).save(masks / "turned.png")
    for name in ("jpeg", "damaged", "bare", "folder", "twice", "link"):
        (images / f"{name}.jpg").write_bytes(plain.read_bytes())
    Image.fromarray(ones).save(masks / "jpeg.jpg")
    (masks / "damaged.png").write_bytes((masks / "other size.png").read_bytes()[:-30])
    (masks / "folder.png").mkdir()
    (images / "twice.png").write_bytes((images / "pal.png").read_bytes())
    Image.fromarray(ones).save(masks / "twice.png")
    Image.fromarray(ones).save(masks / "twice.tif")
    (masks / "link.png").symlink_to("/nowhere/link.png")
    (masks / "alone.png").write_bytes((masks / "plain.png").read_bytes())
    (images / "notes.txt").write_text("no image")
    for folder, name in ((images, b"caf\xe9.jpg"), (masks, b"caf\xe9.png")):
        source = (folder / "plain.jpg") if folder == images else (folder / "plain.png")
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(source.read_bytes())
    rows = [f"{i}\t0.1\t9\t9\t{name}\n" for i, name in enumerate(("wall", "sky", "car"), start=1)]
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "".join(rows))
    source = Ade20k(
        format="ade20k", images=str(images), masks=str(masks),
        classes=str(root / "objectInfo150.txt"),
    )  # fmt: skip
    return source, *prepared(root, source)


def test_label_maps_end_once_and_each_fault_has_its_reason(label_maps):
    source, _, rows, rejects = label_maps
    good = {name.rpartition(".")[0] for name in SIZES}
    assert rows.keys() == {*good, "map16", "palette", "twice", r"caf\xe9"}
    assert {id_: reason for id_, (reason, _) in rejects.items()} == {
        "beyond": "unknown_label", "beyond16": "unknown_label", "of 255": "unknown_label",
        "ignored": "empty_mask", "other size": "mask_size", "rgb": "bad_mask", "jpeg": "bad_mask",
        "damaged": "bad_mask", "bare": "no_labels", "folder": "no_labels", "notes": "no_labels",
        "link": "linked_file", "broken": "linked_file", "cut": "undecodable",
        "turned": "mask_size", "twice+2": "repeated_id", "mask-twice.tif": "repeated_id",
        "mask-alone.png": "missing_file",
    }  # fmt: skip
    assert rejects["turned"][1].endswith("its image 40x60, which its EXIF orientation may turn")
    assert "images/twice.png: twice.jpg has the same name" in rejects["twice+2"][1]
    numbers = {"wall": 1, "sky": 2, "car": 3}
    for id_ in good:
        row = rows[id_]
        values = np.asarray(Image.open(Path(source.masks) / f"{id_}.png"))
        found = restored(row["label_map"], row["labels"], numbers)
        assert (np.where(found == IGNORED, 0, found) == values).all()


@pytest.mark.parametrize("changes", [{}, {"test_scales": (0.5, 1.5), "test_flip": True}])
def test_strange_images_with_label_maps_are_trained_on_and_predicted(label_maps, changes):
    source, split, *_ = label_maps
    check_usable(task_of("segmentation", classes=source.classes, **changes), split)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_an_image_is_not_taken_for_another_of_its_name(tmp_path, form):
    """The recipe names one folder of a file that lists the images of two."""
    folder = tmp_path / "cam1"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg"):
        draw(folder, name, (60, 40))
    places = folder
    if form == "zip":
        places = tmp_path / "cam1.zip"
        with zipfile.ZipFile(places, "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
    names = ["cam1/1.jpg", "cam2/1.jpg", "cam1/2.jpg"]
    images = [{"id": i, "file_name": n, "width": 60, "height": 40} for i, n in enumerate(names)]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    source = CocoInstances(format="coco_instances", annotations=str(path), images=str(places))
    _, rows, rejects = prepared(tmp_path, source)
    assert rows.keys() == {"2"} and {reason for reason, _ in rejects.values()} == {"missing_file"}
    both = tmp_path / "both"
    (both / "cam2").mkdir(parents=True)
    (both / "cam1").symlink_to(folder)
    draw(both / "cam2", "1.jpg", (60, 40))
    source = source.model_copy(update={"images": str(both)})
    _, rows, rejects = prepared(tmp_path / "again", source)
    assert rows.keys() == {"0", "1", "2"} and not rejects
