"""``prepare`` of images with own label maps: kept with their classes, or rejected with their id."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from dataprep.images import encode_jpeg
from dataprep.tasks.label_classes import IGNORED
from dataprep.tasks.stored_label_maps import restored
from orchestration import Dataset
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.finetune import prepare
from pipelines.finetune.formats.label_folders import LabelFolders
from tests.in_process import run_in_process

NEEDS = {"num_images": 1, "num_texts": (0, 0), "needs_labels": False}
CLASSES = "name,r,g,b\nroad,128,64,128\ncar,0,0,142\n,0,0,0\n"
COLORS = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]], np.uint8)
SIZE = (44, 30)


def values(number: int) -> np.ndarray:
    """Rows of the list of classes: 0 is ignored."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    return np.select([columns < 10 + number, rows < 12], [1, 2], 0).astype(np.uint8)


def palette(labels: np.ndarray) -> bytes:
    image = Image.fromarray(labels, "P")
    image.putpalette(COLORS.ravel().tolist())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1])


@pytest.fixture
def folders(tmp_path):
    """Four good images, and one for each fault."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    (images / "a").mkdir(parents=True)
    (masks / "a").mkdir(parents=True)
    good = [values(i) for i in range(4)]
    strange = COLORS[good[0]].copy()
    strange[3, 5] = (9, 9, 9)
    files = {
        "a/0": palette(good[0]), "a/1": png(COLORS[good[1]]), "2": palette(good[2]),
        "3": png(COLORS[good[3]]), "other size": palette(good[0][1:]), "unreadable": b"no image",
        "cut off": palette(good[0])[:60], "unknown color": png(strange),
        "without classes": png(np.zeros_like(strange)), "without image": palette(good[0]),
    }  # fmt: skip
    for name, data in files.items():
        (masks / f"{name}.png").write_bytes(data)
    for name in (*files.keys() - {"without image"}, "without mask", "damaged"):
        pixels = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        data = encode_jpeg(pixels, 90)
        (images / f"{name}.jpg").write_bytes(data[:80] if name == "damaged" else data)
    (masks / "damaged.png").write_bytes(files["2"])
    (tmp_path / "classes.csv").write_text(CLASSES)
    return {
        "images": str(images), "masks": str(masks), "classes": str(tmp_path / "classes.csv"),
        "format": "label_folders",
    }  # fmt: skip


def prepared(tmp_path, section, split="train"):
    """Return the rows by id, and for each reject its reason and what is wrong."""
    source = LabelFolders.model_validate({"slice_rows": 3, **section})
    folder = Store(tmp_path / "out")
    run_in_process(prepare.stage(source, split=split, **NEEDS), folder, {})
    rows = Dataset.open(folder).read().to_pylist()
    rejects = Dataset.open(folder, "rejects").read().to_pylist()
    return (
        {row["example_id"]: row for row in rows},
        {each["sample_id"]: (each["reason"], each["detail"]) for each in rejects},
    )


def test_palettes_and_colors_give_the_classes_and_each_bad_mask_is_a_reject(tmp_path, folders):
    rows, rejects = prepared(tmp_path, folders)
    for i, name in enumerate(["a/0", "a/1", "2", "3"]):
        row = rows.pop(name)
        found = restored(row["label_map"], row["labels"], {"road": 1, "car": 2})
        assert (found == np.where(values(i), values(i), IGNORED)).all()
        assert row["size"] == [*SIZE] and {*row["labels"]} == {"road", "car"}
    assert not rows
    assert {name: reason for name, (reason, _) in rejects.items()} == {
        "train/other size": "mask_size", "train/unreadable": "bad_mask",
        "train/cut off": "bad_mask", "train/unknown color": "unknown_label",
        "train/without classes": "empty_mask", "train/mask-without image.png": "missing_file",
        "train/without mask": "no_labels", "train/damaged": "undecodable",
    }  # fmt: skip
    assert "44x29 pixels, its image 44x30" in rejects["train/other size"][1]
    assert "other size.png" in rejects["train/other size"][1]


def test_a_split_without_masks_has_the_sizes_of_its_images(tmp_path, folders):
    section = {key: value for key, value in folders.items() if key != "masks"}
    assert not LabelFolders.model_validate(section).has_labels
    rows, rejects = prepared(tmp_path, section, "test")
    assert rejects.keys() == {"test/damaged"}
    assert {tuple(row["size"]) for row in rows.values()} == {SIZE}
    assert all(row["label_map"] is None and not row["labels"] for row in rows.values())


def test_a_list_of_classes_that_is_none_is_named(tmp_path, folders):
    (tmp_path / "classes.csv").write_text("name,r,g,b\nroad,1,2\n")
    with pytest.raises(Exception, match=r"classes\.csv, line 2"):
        LabelFolders.model_validate(folders).expected_rows()
    (tmp_path / "classes.csv").write_text("name,r,g,b\nsky,1,2,3\n")
    with pytest.raises(StageError, match=r"no example can be used.*unknown_label"):
        prepared(tmp_path, folders)
