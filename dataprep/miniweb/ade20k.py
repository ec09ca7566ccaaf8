"""ADE20K's label maps, in the files of the scene parsing challenge of 2016.

    ADEChallengeData2016/images/{training,validation}/ADE_{train,val}_<number, 8 digits>.jpg
    ADEChallengeData2016/annotations/{training,validation}/ADE_{train,val}_<number, 8 digits>.png
    ADEChallengeData2016/objectInfo150.txt   the classes

The first class is the ground, the others are the shapes. Swarms of tiny shapes are of no class, as
the value 0 says. Label maps are those of the visible pixels. Faults of images: ``missing_file`` (a
label map without an image, ``mask-<path>``), ``undecodable``. Faults of label maps: ``no_labels``
(there is none), ``bad_mask``, ``mask_size``, ``unknown_label``, ``empty_mask``.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.miniweb.crowded_scenes import CrowdedScene, crowded_scene
from dataprep.miniweb.drawn_images import ImageRenderer, numbered_rng
from dataprep.miniweb.grammar import SHAPES
from dataprep.miniweb.image_formats import FORMATS
from dataprep.miniweb.task_images import fault_of, image_sides, split_of
from dataprep.miniweb.truth import TaskRow

ADE20K: Final = "ADEChallengeData2016"
CLASSES_FILE: Final = "objectInfo150.txt"
CLASSES: Final = ("ground", *SHAPES)
_OTHER: Final = 0
"Value of the pixels of no class."
_FAULTS: Final = (
    "missing_file", "undecodable", "no_labels", "bad_mask", "mask_size", "unknown_label",
    "empty_mask",
)  # fmt: skip
_SOURCE: Final = 27


def write_ade20k(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[TaskRow]:
    """Write ``ADEChallengeData2016/`` with ``number`` images."""
    root, rows = folder / ADE20K, list[TaskRow]()
    for kind in ("images", "annotations"):
        for split in ("training", "validation"):
            (root / kind / split).mkdir(parents=True)
    areas = np.zeros(len(CLASSES) + 1, np.int64)
    drawn = renderer.pool.map(lambda i: _drawn(seed, i), range(number))
    for i, (labels, jpeg) in enumerate(drawn):
        is_train = split_of(i) == "train"
        split = "training" if is_train else "validation"
        name = f"ADE_{'train' if is_train else 'val'}_{i + 1:08d}"
        outcome = fault_of(i, "train" if is_train else "dev", _FAULTS)
        image = f"{ADE20K}/images/{split}/{name}.jpg"
        if outcome != "missing_file":
            (folder / image).write_bytes(
                jpeg[: len(jpeg) // 3] if outcome == "undecodable" else jpeg
            )
        if outcome != "no_labels":
            data = _mask(labels, outcome)
            (root / f"annotations/{split}/{name}.png").write_bytes(data)
        areas += np.bincount(labels.ravel(), minlength=len(areas))
        id_ = f"mask-{name}.png" if outcome == "missing_file" else name
        present = ", ".join(CLASSES[c - 1] for c in np.unique(labels) if c != _OTHER)
        rows.append(TaskRow(ADE20K, split, id_, outcome, (image,), label=present))
    _write_classes(root / CLASSES_FILE, areas, number)
    return rows


def _drawn(seed: int, number: int) -> tuple[NDArray[np.uint8], bytes]:
    """Return the values of the label map of an image, and the image."""
    rng = numbered_rng(seed, _SOURCE, number)
    scene = crowded_scene(number, *image_sides(rng), rng)
    return labels_of(scene), FORMATS["jpeg"](scene.pixels)


def labels_of(scene: CrowdedScene) -> NDArray[np.uint8]:
    """Return the values (height, width) of a scene's label map."""
    labels = np.full(scene.pixels.shape[:2], CLASSES.index("ground") + 1, np.uint8)
    for thing in scene.objects:
        labels[thing.mask] = _OTHER if thing.is_swarm else CLASSES.index(thing.shape) + 1
    return labels


def _mask(labels: NDArray[np.uint8], outcome: str) -> bytes:
    if outcome == "mask_size":
        labels = labels[:-1]
    if outcome == "unknown_label":
        labels = labels.copy()
        labels[len(labels) // 2, :3] = len(CLASSES) + 1
    if outcome == "empty_mask":
        labels = np.full_like(labels, _OTHER)
    data = bytes(cv2.imencode(".png", labels)[1])
    return data[: len(data) // 2] if outcome == "bad_mask" else data


def _write_classes(path: Path, areas: NDArray[np.int64], number: int) -> None:
    """Write the list: the part of all pixels of each class, and the number of images."""
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    for i, name in enumerate(CLASSES, start=1):
        lines.append(f"{i}\t{areas[i] / areas.sum():.4f}\t{number}\t{number}\t{name}")
    path.write_text("".join(f"{line}\n" for line in lines))
