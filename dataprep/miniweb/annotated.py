"""Annotated images in zip archives: COCO captions and Visual Genome's regions.

    dataset_coco.json   Karpathy's form, with train2014.zip (train) and val2014.zip (the others)
    region_descriptions.json, image_data.json
                        with images.zip (VG_100K) and images2.zip (VG_100K_2); every second image
                        is a re-encoded COCO image, until all of those are used

Some members are truncated (``undecodable``), missing (``missing_file``) or corrupted
(``damaged_file``); some images have no caption.
"""

import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from dataprep.miniweb.drawing import Placement, lay_out
from dataprep.miniweb.drawn_images import DrawnImage, ImageRenderer, image_size, numbered_rng
from dataprep.miniweb.grammar import Group, Scene, caption, random_scene
from dataprep.miniweb.truth import Row, Written

COCO: Final = "dataset_coco.json"
COCO_TRAIN: Final = "train2014.zip"
COCO_VAL: Final = "val2014.zip"
EVALUATED: Final = "coco_eval"
"Prefix, instead of the source, of the names of COCO's val and test images."
REGIONS: Final = "region_descriptions.json"
IMAGE_DATA: Final = "image_data.json"
VG_ARCHIVES: Final = {"VG_100K": "images.zip", "VG_100K_2": "images2.zip"}
"Archive by the folder inside it."
_LONGEST_SIDE: Final = 640
_SPLITS: Final = (*("train",) * 6, "restval", "restval", "val", "test")
_CAPTIONS: Final = 5
_FAULTS: Final = ("undecodable", "missing_file", "damaged_file", "empty_caption")

Box = tuple[int, int, int, int]
"x, y, width, height in pixels."


def write_coco(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> Written:
    """Write ``dataset_coco.json`` and its archives; two images in ten are in val or test."""
    written, entries, members = Written(), list[dict[str, Any]](), dict[str, str]()
    images: list[DrawnImage] = []
    num_trained = 0
    for i in range(number):
        rng = numbered_rng(seed, 7, i)
        scene = random_scene(rng)
        width, height = image_size(rng, _LONGEST_SIDE)
        split = _SPLITS[i % len(_SPLITS)]
        outcome = "ok"
        if split in ("train", "restval"):
            outcome, num_trained = _fault(num_trained), num_trained + 1
        sentences = [f"{caption(scene, rng).capitalize()}." for _ in range(_CAPTIONS)]
        entry = _coco_image(i, split, [""] if outcome == "empty_caption" else sentences)
        entries.append(entry)
        members[f"{entry['filepath']}/{entry['filename']}"] = outcome
        images.append(DrawnImage(scene, width, height, (seed, 7, i)))
        name = f"{EVALUATED if split in ('val', 'test') else 'coco'}/{entry['cocoid']}"
        if not name.startswith(EVALUATED):
            written.rows.append(Row("coco", name, outcome, sentences[0], width, height))
        if outcome == "ok":
            written.originals[name] = images[-1]
    (folder / COCO).write_text(json.dumps({"images": entries, "dataset": "coco"}))
    files = list(zip(members.items(), renderer.render(images), strict=True))
    for archive, prefix in ((COCO_TRAIN, "train2014/"), (COCO_VAL, "val2014/")):
        _write_zip(folder / archive, (f for f in files if f[0][0].startswith(prefix)))
    return written


def split_by_use(
    coco: Mapping[str, DrawnImage],
) -> tuple[dict[str, DrawnImage], dict[str, DrawnImage]]:
    """Return COCO's images by name, as (training images, evaluation images)."""
    training = {n: image for n, image in coco.items() if not n.startswith(EVALUATED)}
    return training, {n: image for n, image in coco.items() if n not in training}


def _coco_image(number: int, split: str, sentences: list[str]) -> dict[str, Any]:
    coco_id = 9 + 7 * number
    folder = "train2014" if split == "train" else "val2014"
    first = number * _CAPTIONS
    return {
        "filepath": folder,
        "sentids": [first + j for j in range(len(sentences))],
        "filename": f"COCO_{folder}_{coco_id:012d}.jpg",
        "imgid": number,
        "split": split,
        "sentences": [
            {
                "tokens": text.lower().replace(",", "").rstrip(".").split(),
                "raw": text,
                "imgid": number,
                "sentid": first + j,
            }
            for j, text in enumerate(sentences)
        ],
        "cocoid": coco_id,
    }


def write_visual_genome(
    folder: Path, number: int, seed: int, renderer: ImageRenderer, coco: Mapping[str, DrawnImage]
) -> list[Row]:
    """Write Visual Genome's files.

    Args:
        folder: folder of the web.
        number: number of images.
        seed: seed of the web.
        renderer: draws the images.
        coco: COCO's images by name; every second image here is a copy of one of them.
    """
    rows, annotations, data = list[Row](), [], []
    members, images = dict[str, str](), []
    copied = iter(coco.items())
    num_free = 0
    for i in range(number):
        rng = numbered_rng(seed, 8, i)
        of, original = next(copied, (None, None)) if i % 2 else (None, None)
        if original:
            image = replace(original, format="reencoded")
        else:
            image = DrawnImage(random_scene(rng), *image_size(rng, _LONGEST_SIDE), (seed, 8, i))
        if of and of.startswith(EVALUATED):
            outcome = "evaluation_image"
        else:
            outcome, num_free = _fault(num_free), num_free + 1
        image_id, subfolder = i + 1, list(VG_ARCHIVES)[i % 3 == 2]
        found = [] if outcome == "empty_caption" else list(_regions(image))
        annotations.append(_vg_image(image_id, found))
        data.append(_vg_data(image_id, subfolder, image, of))
        members[f"{subfolder}/{image_id}.jpg"] = outcome
        images.append(image)
        first = found[0][0] if found else ""
        name = f"visual_genome/{image_id}"
        row = Row("visual_genome", name, outcome, first, image.width, image.height)
        rows.append(replace(row, copy_of=of, copy_kind=image.format) if of else row)
    (folder / REGIONS).write_text(json.dumps(annotations))
    (folder / IMAGE_DATA).write_text(json.dumps(data))
    files = list(zip(members.items(), renderer.render(images), strict=True))
    for subfolder, archive in VG_ARCHIVES.items():
        _write_zip(folder / archive, (f for f in files if f[0][0].startswith(f"{subfolder}/")))
    return rows


def _vg_image(image_id: int, regions: list[tuple[str, Box]]) -> dict[str, Any]:
    return {
        "id": image_id,
        "regions": [
            {
                "region_id": 1000 * image_id + j,
                "image_id": image_id,
                "phrase": phrase,
                **dict(zip(("x", "y", "width", "height"), box, strict=True)),
            }
            for j, (phrase, box) in enumerate(regions)
        ],
    }


def _vg_data(image_id: int, subfolder: str, image: DrawnImage, coco: str | None) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "url": f"http://cdn.miniweb.test/{subfolder}/{image_id}.jpg",
        "width": image.width,
        "height": image.height,
        "coco_id": int(coco.rsplit("/", 1)[1]) if coco else None,
        "flickr_id": None,
    }


def _regions(image: DrawnImage) -> Iterator[tuple[str, Box]]:
    """Yield a phrase and a box for groups, single shapes, relations and the background."""
    scene, size = image.scene, (image.width, image.height)
    layout = lay_out(scene, *size, image.rng)
    for group, placements in zip(scene.groups, layout.groups, strict=True):
        whole = _box(placements, size)
        yield group.phrase, whole
        yield f" the {group.color} {group.noun}", whole
        if group.texture != "plain":
            yield (
                f"{group.noun} are {group.texture}"
                if group.count > 1
                else (f"{group.noun} is {group.texture}"),
                whole,
            )
        if group.count > 1:
            one = Group(1, group.size, group.color, group.texture, group.shape)
            yield from ((one.phrase, _box([placement], size)) for placement in placements)
    if len(scene.groups) == 2:
        yield _relation(scene), _box(itertools.chain(*layout.groups), size)
    yield f"{scene.background} background", (0, 0, *size)


def _relation(scene: Scene) -> str:
    first, second = (group.noun for group in scene.groups)
    return f"{first} {scene.relation} {second}"


def _box(placements: Iterable[Placement], size: tuple[int, int]) -> Box:
    """Return the box around some shapes, clipped to the image."""
    x, y, radius = np.array(list(placements)).T
    left, top = max(int((x - radius).min()), 0), max(int((y - radius).min()), 0)
    right, bottom = (
        min(int((x + radius).max()) + 1, size[0]),
        min(int((y + radius).max()) + 1, size[1]),
    )
    return left, top, right - left, bottom - top


def _fault(number: int) -> str:
    return _FAULTS[(number // 11) % len(_FAULTS)] if number % 11 == 6 else "ok"


def _write_zip(path: Path, files: Iterable[tuple[tuple[str, str], bytes]]) -> None:
    """Write a zip of ``((name, outcome), bytes)`` with the damage that the outcomes name."""
    corrupted = []
    with zipfile.ZipFile(path, "w") as archive:
        for (name, outcome), data in files:
            if outcome == "missing_file":
                continue
            is_whole = outcome != "undecodable"
            archive.writestr(zipfile.ZipInfo(name), data if is_whole else data[: len(data) // 3])
            if outcome == "damaged_file":
                corrupted.append(archive.getinfo(name))
    with path.open("r+b") as file:
        for info in corrupted:
            file.seek(info.header_offset + len(info.FileHeader()) + info.file_size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 0xFF]))
