"""The miniature web's objects: as pycocotools reads them, as pixels show them, and their faults."""

import contextlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from dataprep.miniweb.coco_instances import CATEGORIES, COCO_INSTANCES, TRUE_OBJECTS
from dataprep.miniweb.corpora import WebSize, build
from dataprep.tasks.coco_instances import read_coco_instances
from dataprep.tasks.run_lengths import mask_of
from tests.dataprep.task_webs import outcomes, pixels, truth

NUMBER = 160
SIZE = WebSize(7, 1, 1, 1, 1, 1, num_coco_instances=NUMBER)
LABELED = ("instances_train2017", "instances_val2017")
REASONS = {
    "bad_box", "empty_box", "box_outside", "bad_mask", "mask_size", "empty_mask", "unknown_label",
    "unknown_image", "repeated_id",
}  # fmt: skip


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A web with COCO's objects."""
    folder = tmp_path_factory.mktemp("coco") / "miniweb"
    build(folder, SIZE)
    return folder


def opened(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.fixture(scope="module")
def true(web) -> COCO:
    """What was drawn."""
    return opened(web / COCO_INSTANCES / TRUE_OBJECTS)


def listed(web: Path, name: str) -> dict:
    return json.loads((web / COCO_INSTANCES / f"annotations/{name}.json").read_text())


def test_each_file_has_the_published_fields_and_class_ids_with_gaps(web):
    for name in LABELED:
        content = listed(web, name)
        assert [entry["id"] for entry in content["categories"]] == list(CATEGORIES)
        assert all(
            entry.keys() >= {"id", "file_name", "width", "height"} for entry in content["images"]
        )
        expected = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}
        assert all(entry.keys() == expected for entry in content["annotations"])
        ids = [entry["image_id"] for entry in content["annotations"]]
        assert ids != sorted(ids)
    assert "annotations" not in listed(web, "image_info_test-dev2017")
    assert max(CATEGORIES) > len(CATEGORIES)


def test_masks_of_every_form_are_the_drawn_ones(web, true):
    """Polygons end a fraction of a pixel within the mask."""
    kinds: Counter[str] = Counter()
    for name in LABELED:
        forms = {a["id"]: a["segmentation"] for a in listed(web, name)["annotations"]}
        for example in read_coco_instances(web / COCO_INSTANCES / f"annotations/{name}.json"):
            for thing in example.objects:
                form = forms[thing.id]
                kinds["polygons" if isinstance(form, list) else type(form["counts"]).__name__] += 1
                kinds["crowd"] += thing.is_crowd
                drawn = true.annToMask(true.anns[thing.id]).astype(bool)
                found = mask_of(thing.mask, *example.size)
                assert (found & drawn).sum() / (found | drawn).sum() > 0.9
                rows, columns = np.nonzero(drawn)
                left, top, width, height = thing.box
                assert (left, top) == (columns.min(), rows.min())
                assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
                assert thing.area == drawn.sum()
    assert kinds["polygons"] > 150 and min(kinds[k] for k in ("list", "str", "crowd")) > 5


def test_objects_are_tiny_and_large_cut_by_the_border_and_partly_hidden(true):
    images = {image["id"]: image for image in true.dataset["images"]}
    sides = np.array([max(a["bbox"][2:]) for a in true.anns.values() if not a["iscrowd"]])
    assert np.quantile(sides, 0.1) < 20 and np.quantile(sides, 0.9) > 38
    at_border = [
        a["bbox"][0] == 0 or a["bbox"][0] + a["bbox"][2] == images[a["image_id"]]["width"]
        for a in true.anns.values()
    ]
    assert 0.1 < np.mean(at_border) < 0.6
    by_image: dict[int, list] = {}
    for entry in true.anns.values():
        by_image.setdefault(entry["image_id"], []).append(entry)
    overlapping = 0
    for entries in by_image.values():
        masks = np.stack([true.annToMask(entry) for entry in entries])
        assert masks.sum(0).max() <= 1, "a pixel belongs to the shape that is seen there"
        for i, first in enumerate(entries):
            x, y, w, h = first["bbox"]
            boxes = masks[:, y : y + h, x : x + w].sum((1, 2))
            overlapping += sum(boxes[j] > 0 for j in range(len(entries)) if j != i)
    assert overlapping > 50
    assert 0.03 < 1 - len(by_image) / NUMBER < 0.1, "images without any object"


def test_pixels_of_an_object_have_its_colors_and_differ_from_those_around_it(web, true):
    """Of a plain or patterned shape, all pixels but the edge have at most two colors."""
    checked = 0
    for entry in list(true.anns.values())[:80]:
        image = true.imgs[entry["image_id"]]
        path = web / COCO_INSTANCES / "train2017" / image["file_name"]
        if not path.exists() or entry["iscrowd"] or entry["area"] < 300:
            continue
        try:
            shown = pixels(path)
        except OSError:
            continue  # a truncated one
        mask = true.annToMask(entry).astype(bool)
        inner = shown[mask]
        hue = inner - inner.mean(1, keepdims=True)
        strong = hue[np.abs(hue).max(1) > 25]
        if len(strong) > 50:
            direction = np.median(strong / np.linalg.norm(strong, axis=1, keepdims=True), axis=0)
            alike = (strong @ direction) / np.linalg.norm(strong, axis=1) > 0.8
            assert alike.mean() > 0.85, entry["id"]
            checked += 1
    assert checked > 15


def test_every_row_ends_as_the_truth_says(web):
    rows = truth(web, COCO_INSTANCES)
    assert outcomes(rows) == {"ok", "missing_file", "undecodable", *REASONS}
    for name in (*LABELED, "image_info_test-dev2017"):
        path = web / COCO_INSTANCES / f"annotations/{name}.json"
        made = list(read_coco_instances(path, is_labeled=name in LABELED))
        expected = {id_: row for (split, id_), row in rows.items() if split == name}
        assert {each.id.split("+")[0] for each in made} == expected.keys()
        for each in made:
            row = expected[each.id.split("+")[0]]
            if each.id.startswith("annotation-"):
                assert each.reason == row["outcome"]
                continue
            assert each.reason == "" and row["images"][0].endswith(each.images[0])
            if name in LABELED:
                assert sorted(each.labels) == sorted(filter(None, row["label"].split(", ")))
            image = web / row["images"][0]
            assert image.exists() == (row["outcome"] != "missing_file")


def test_the_same_size_gives_the_same_bytes_(web, tmp_path):
    build(tmp_path / "again", SIZE)
    for path in sorted((web / COCO_INSTANCES).rglob("*.json")):
        assert (tmp_path / "again" / path.relative_to(web)).read_bytes() == path.read_bytes()
    images = sorted((web / COCO_INSTANCES).rglob("*.jpg"))
    assert len(images) > 0.9 * NUMBER
    for path in images[::10]:
        assert (tmp_path / "again" / path.relative_to(web)).read_bytes() == path.read_bytes()
