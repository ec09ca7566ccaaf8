"""COCO's objects with boxes and masks, in the files of the release of 2017.

    coco2017/annotations/instances_{train,val}2017.json, image_info_test-dev2017.json
    coco2017/{train,val,test}2017/<id, 12 digits>.jpg
    coco2017/truth.json   all objects of all images as they were drawn, as one file of COCO's form

Classes are the shapes; their ids have gaps. The mask of a shape without a hole is polygons, that of
others run lengths, as a list or as text; a swarm is a crowd. Boxes are those of the visible pixels.
Faults of images: ``missing_file``, ``undecodable``. Faults of annotations, which are rejects
``annotation-<id>``: ``bad_box``, ``empty_box``, ``box_outside``, ``bad_mask``, ``mask_size``,
``empty_mask``, ``unknown_label``, ``unknown_image``, ``repeated_id``.
"""

import json
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.miniweb.crowded_scenes import CrowdedScene, DrawnObject, crowded_scene
from dataprep.miniweb.drawn_images import ImageRenderer, numbered_rng
from dataprep.miniweb.grammar import SHAPES
from dataprep.miniweb.image_formats import FORMATS
from dataprep.miniweb.task_images import Split, fault_of, image_sides, split_of
from dataprep.miniweb.truth import TaskRow
from dataprep.tasks.run_lengths import counts_of, text_of_mask

COCO_INSTANCES: Final = "coco2017"
TRUE_OBJECTS: Final = "truth.json"
CATEGORIES: Final = dict(zip((1, 2, 4, 5, 13, 27, 64, 90), SHAPES, strict=True))
"Name of each class by its id."
_SPLITS: Final[dict[Split, tuple[str, str]]] = {
    "train": ("train2017", "instances_train2017"),
    "dev": ("val2017", "instances_val2017"),
    "test": ("test2017", "image_info_test-dev2017"),
}
"Folder of the images, and name of the annotations."
_IMAGE_FAULTS: Final = ("missing_file", "undecodable")
_FAULT_PERIOD: Final = 7
"Of so many images of a split one has an annotation that is bad."
_TEXT_PERIOD: Final = 5
"Of so many masks without a hole one is text of run lengths."
_FINER: Final = 4
"Polygons are exact to such a part of a pixel."
_SOURCE: Final = 26


def write_coco_instances(
    folder: Path, number: int, seed: int, renderer: ImageRenderer
) -> list[TaskRow]:
    """Write ``coco2017/`` with ``number`` images."""
    root, files = folder / COCO_INSTANCES, {split: _File() for split in _SPLITS}
    (root / "annotations").mkdir(parents=True)
    for place, _ in _SPLITS.values():
        (root / place).mkdir()
    true, rows = _File(), list[TaskRow]()
    scenes = renderer.pool.map(lambda i: _drawn(seed, i), range(number))
    for i, (scene, jpeg) in enumerate(scenes):
        split = split_of(i)
        file, (place, name) = files[split], _SPLITS[split]
        outcome = fault_of(i, split, _IMAGE_FAULTS)
        image = _image(i, scene)
        path = f"{COCO_INSTANCES}/{place}/{image['file_name']}"
        if outcome != "missing_file":
            (folder / path).write_bytes(jpeg[: len(jpeg) // 3] if outcome != "ok" else jpeg)
        for thing in scene.objects:
            entry = _annotation(thing, image["id"], len(true.annotations))
            true.annotations.append(entry | {"segmentation": _text(thing.mask)})
            file.annotations.append(entry)
        true.images.append(image)
        file.images.append(image)
        classes = ", ".join(thing.shape for thing in scene.objects)
        row = TaskRow(COCO_INSTANCES, name, str(image["id"]), outcome, (path,), label=classes)
        rows.append(row)
        if split != "test" and len(file.images) % _FAULT_PERIOD == 2:
            rows.append(_spoil(file, image, name, i))
    for split, (_, name) in _SPLITS.items():
        rng = numbered_rng(seed, _SOURCE, len(split))
        file = files[split]
        file.annotations = [file.annotations[j] for j in rng.permutation(len(file.annotations))]
        file.write(root / f"annotations/{name}.json", is_labeled=split != "test")
    true.write(root / TRUE_OBJECTS, is_labeled=True)
    return rows


class _File:
    """The content of a file of annotations."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.num_bad = 0

    def write(self, path: Path, *, is_labeled: bool) -> None:
        content: dict[str, Any] = {"info": {"year": 2017}, "images": self.images}
        if is_labeled:
            content["annotations"] = self.annotations
        names = [{"id": i, "name": n, "supercategory": "shape"} for i, n in CATEGORIES.items()]
        path.write_text(json.dumps(content | {"categories": names}))


def _drawn(seed: int, number: int) -> tuple[CrowdedScene, bytes]:
    rng = numbered_rng(seed, _SOURCE, number)
    scene = crowded_scene(number, *image_sides(rng), rng)
    return scene, FORMATS["jpeg"](scene.pixels)


def _image(number: int, scene: CrowdedScene) -> dict[str, Any]:
    height, width = scene.pixels.shape[:2]
    id_ = 139 + 7 * number
    return {"id": id_, "file_name": f"{id_:012d}.jpg", "width": width, "height": height}


def _annotation(thing: DrawnObject, image_id: int, number: int) -> dict[str, Any]:
    rows, columns = np.nonzero(thing.mask)
    left, top = int(columns.min()), int(rows.min())
    return {
        "id": 1768 + 3 * number,
        "image_id": image_id,
        "category_id": next(id_ for id_, shape in CATEGORIES.items() if shape == thing.shape),
        "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        "area": float(thing.mask.sum()),
        "iscrowd": int(thing.is_swarm),
        "segmentation": _segmentation(thing, number),
    }


def _segmentation(thing: DrawnObject, number: int) -> Any:
    finer = np.kron(thing.mask, np.ones((_FINER, _FINER), np.uint8)).astype(np.uint8)
    contours, hierarchy = cv2.findContours(finer, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    has_hole = bool((hierarchy[0, :, 3] >= 0).any())
    if thing.is_swarm or has_hole:
        text = _text(thing.mask)
        return text | {"counts": counts_of(text["counts"]).tolist()}
    if number % _TEXT_PERIOD == 0:
        return _text(thing.mask)
    return [np.round((c.reshape(-1) + 0.5) / _FINER, 2).tolist() for c in contours if len(c) > 2]


def _text(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": text_of_mask(mask)}


def _spoil(file: _File, image: dict[str, Any], name: str, number: int) -> TaskRow:
    """Add a bad annotation to an image; the kinds follow each other."""
    width, height = image["width"], image["height"]
    changes: dict[str, dict[str, Any]] = {
        "bad_box": {"bbox": [float("nan"), 4, 9, 9]},
        "empty_box": {"bbox": [4, 4, 0, 9]},
        "box_outside": {"bbox": [width + 5, 4, 9, 9]},
        "bad_mask": {"segmentation": [[4, 4, 9]]},
        "mask_size": {"segmentation": {"size": [height, width + 1], "counts": [height, 9]}},
        "empty_mask": {"segmentation": {"size": [height, width], "counts": [height * width]}},
        "unknown_label": {"category_id": 3},
        "unknown_image": {"image_id": 1},
        "repeated_id": {},
    }
    reason = list(changes)[file.num_bad % len(changes)]
    file.num_bad += 1
    entry = {
        "id": 900_000 + number, "image_id": image["id"], "category_id": 1, "bbox": [4, 4, 9, 9],
        "area": 81.0, "iscrowd": 0, "segmentation": [[4, 4, 13, 4, 13, 13, 4, 13]],
    }  # fmt: skip
    if reason == "repeated_id":
        entry = file.annotations[-1]
    file.annotations.append(entry | changes[reason])
    return TaskRow(COCO_INSTANCES, name, f"annotation-{entry['id']}", reason)
