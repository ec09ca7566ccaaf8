"""ImageNet-1K: folders of images by class, and the names of the classes.

    imagenet/train/<wnid>/<wnid>_<number>.JPEG
    imagenet/val/<wnid>/ILSVRC2012_val_<number, 8 digits>.JPEG
    imagenet/classes.tsv    wnid TAB names, separated by ", "

A class is a color and a shape. Of four classes or more, the last is a homonym of the first: both
have the same names, as the bird and the machine ``crane`` have, but the shapes of one are striped
and those of the other plain. Every third class has a second name. As in the real folders, some
files named ``.JPEG`` are PNG or CMYK. Fault: a truncated image (``undecodable``).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from dataprep.miniweb.drawn_images import ImageRenderer, numbered_rng
from dataprep.miniweb.grammar import COLORS, SHAPES, Scene, class_scene
from dataprep.miniweb.task_images import TaskImage, fault_of, small_image, write_images
from dataprep.miniweb.truth import TaskRow

IMAGENET1K: Final = "imagenet"
_FIRST_WNID: Final = 1_440_764
_WNID_STEP: Final = 7_919
_FEWEST_FOR_HOMONYM: Final = 4
_VAL_FRACTION: Final = 0.2
"Validation images per training image."
_OTHER_FORMATS: Final = {11: "palette", 23: "cmyk"}
_FORMAT_PERIOD: Final = 40
_SOURCE: Final = 24


@dataclass(frozen=True)
class _Class:
    """A class; without a texture, its images have any."""

    wnid: str
    color: str
    shape: str
    texture: str | None
    names: tuple[str, ...]


def write_imagenet1k(
    folder: Path, num_classes: int, num_images: int, seed: int, renderer: ImageRenderer
) -> list[TaskRow]:
    """Write ``imagenet/`` with ``num_images`` training images of each class."""
    num_val = max(1, round(_VAL_FRACTION * num_images))
    rows, images, classes = list[TaskRow](), list[TaskImage](), _classes(num_classes)
    for c, class_ in enumerate(classes):
        for i in range(num_images + num_val):
            rng = numbered_rng(seed, _SOURCE, c, i)
            is_train = i < num_images
            number = c * num_images + i if is_train else c * num_val + i - num_images
            outcome = fault_of(number, "train" if is_train else "dev", ("undecodable",))
            split = "train" if is_train else "val"
            stem = f"{class_.wnid}_{i}" if is_train else f"ILSVRC2012_val_{number + 1:08d}"
            place = f"{IMAGENET1K}/{split}/{class_.wnid}/{stem}.JPEG"
            scene = _scene(class_, rng)
            drawn = small_image(scene, rng, (seed, _SOURCE, c, i))
            drawn = replace(drawn, format=_OTHER_FORMATS.get(number % _FORMAT_PERIOD, "jpeg"))
            images.append(TaskImage(folder / place, drawn, outcome))
            example_id = f"{class_.wnid}/{stem}.JPEG"
            rows.append(
                TaskRow(IMAGENET1K, split, example_id, outcome, (place,), label=class_.wnid)
            )
    write_images(renderer, images)
    lines = sorted(f"{class_.wnid}\t{', '.join(class_.names)}\n" for class_ in classes)
    (folder / IMAGENET1K / "classes.tsv").write_text("".join(lines))
    return rows


def _classes(number: int) -> list[_Class]:
    """Return the classes, whose ids are not in the order of their colors or shapes."""
    has_homonym = number >= _FEWEST_FOR_HOMONYM
    found = []
    for c in range(number):
        k = 0 if has_homonym and c == number - 1 else c
        color = tuple(COLORS)[k % len(COLORS)]
        shape = SHAPES[(k + k // len(COLORS)) % len(SHAPES)]
        names = (f"{color} {shape}", f"{shape} in {color}")[: 2 if k % 3 == 0 else 1]
        texture = None
        if has_homonym and k == 0:
            texture = "plain" if c == 0 else "striped"
        wnid = f"n{_FIRST_WNID + _WNID_STEP * (37 * c % 101):08d}"
        found.append(_Class(wnid, color, shape, texture, names))
    return found


def _scene(class_: _Class, rng: np.random.Generator) -> Scene:
    scene = class_scene(rng, class_.color, class_.shape)
    if class_.texture is None:
        return scene
    return replace(scene, groups=(replace(scene.groups[0], texture=class_.texture),))
