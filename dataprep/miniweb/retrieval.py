"""Captions: COCO and Flickr30K in Karpathy's form, with folders of images.

    coco_retrieval/dataset_coco.json       with train2014/ (train) and val2014/ (the others)
    flickr30k/dataset_flickr30k.json       with flickr30k-images/

Each image has five different captions, and every caption tells all facts of its scene. No two
scenes of a file have the same facts, so each caption fits exactly one image. Faults: an image
that is not there (``missing_file``), an image whose only caption is empty (``empty_text``), a
split of another name (``unknown_split``). Format: http://cs.stanford.edu/people/karpathy/deepimagesent/.
"""

import json
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from dataprep.miniweb.drawn_images import ImageRenderer, numbered_rng
from dataprep.miniweb.grammar import (
    OPENINGS,
    RELATIONS,
    Scene,
    capital,
    caption,
    one_of,
    random_scene,
)
from dataprep.miniweb.task_images import TaskImage, fault_of, small_image, split_of, write_images
from dataprep.miniweb.truth import TaskRow

COCO_RETRIEVAL: Final = "coco_retrieval"
FLICKR30K: Final = "flickr30k"
UNKNOWN_SPLIT: Final = "unused"
_CAPTIONS: Final = 5
_SPLITS: Final = {"train": "train", "dev": "val", "test": "test"}
_RESTVAL: Final = 4
"Of this many training images of COCO, one is of ``restval``."
_SOURCES: Final = {COCO_RETRIEVAL: 22, FLICKR30K: 23}
_FAULTS: Final = ("missing_file", "empty_text", "unknown_split")


def write_coco_retrieval(
    folder: Path, number: int, seed: int, renderer: ImageRenderer
) -> list[TaskRow]:
    """Write ``coco_retrieval/`` with ``number`` images."""
    return _write(folder, COCO_RETRIEVAL, number, seed, renderer)


def write_flickr30k(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[TaskRow]:
    """Write ``flickr30k/`` with ``number`` images."""
    return _write(folder, FLICKR30K, number, seed, renderer)


def _write(
    folder: Path, task: str, number: int, seed: int, renderer: ImageRenderer
) -> list[TaskRow]:
    rows, images, entries, seen = list[TaskRow](), list[TaskImage](), [], set[Hashable]()
    for i in range(number):
        rng = numbered_rng(seed, _SOURCES[task], i)
        scene = random_scene(rng)
        while _facts(scene) in seen:
            scene = random_scene(rng)
        seen.add(_facts(scene))
        outcome = fault_of(i, split_of(i), _FAULTS)
        split = _SPLITS[split_of(i)]
        if task == COCO_RETRIEVAL and split == "train" and i % _RESTVAL == 1:
            split = "restval"
        name = _file_name(task, split, i)
        texts = [""] if outcome == "empty_text" else _captions(scene, rng)
        entry = {
            **name,
            "imgid": i,
            "split": UNKNOWN_SPLIT if outcome == "unknown_split" else split,
            "sentids": [_CAPTIONS * i + j for j in range(len(texts))],
            "sentences": [_sentence(text, i, j) for j, text in enumerate(texts)],
        }
        entries.append(entry)
        place = "/".join((task, name.get("filepath", "flickr30k-images"), name["filename"]))
        drawn = small_image(scene, rng, (seed, _SOURCES[task], i))
        images.append(TaskImage(folder / place, drawn, outcome))
        kept = tuple(text for text in texts if text)
        rows.append(TaskRow(task, entry["split"], str(i), outcome, (place,), kept))
    write_images(renderer, images)
    dataset = task.removesuffix("_retrieval")
    path = folder / task / f"dataset_{dataset}.json"
    path.write_text(json.dumps({"images": entries, "dataset": dataset}))
    return rows


def _file_name(task: str, split: str, number: int) -> dict[str, Any]:
    """Return the fields that name the image; Flickr30K's file has no folder and no other id."""
    if task == FLICKR30K:
        return {"filename": f"{1_000_092_795 + 4_111 * number}.jpg"}
    coco_id, folder = 9 + 7 * number, "train2014" if split == "train" else "val2014"
    return {
        "filepath": folder,
        "filename": f"COCO_{folder}_{coco_id:012d}.jpg",
        "cocoid": coco_id,
    }


def _facts(scene: Scene) -> Hashable:
    """Return what captions tell of a scene: the same for both orders of its groups."""
    if len(scene.groups) == 1:
        return replace(scene, relation="")
    mirrored = Scene(scene.background, scene.groups[::-1], RELATIONS[scene.relation])
    return frozenset((scene, mirrored))


def _captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Return five different captions of a scene, as sentences."""
    found = list[str]()
    while len(found) < _CAPTIONS:
        text = caption(scene, rng)
        if len(scene.groups) == 2 and not text.startswith("on ") and rng.random() < 0.5:
            text = f"{one_of(rng, OPENINGS)} {text}"
        if (sentence := f"{capital(text)}.") not in found:
            found.append(sentence)
    return found


def _sentence(text: str, image: int, number: int) -> dict[str, Any]:
    return {
        "tokens": text.lower().replace(",", "").rstrip(".").split(),
        "raw": text,
        "imgid": image,
        "sentid": _CAPTIONS * image + number,
    }
