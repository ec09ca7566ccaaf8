"""NoCaps: images with shapes that COCO's captions do not name, in the published form.

    nocaps/nocaps_val_4500_captions.json     images with domain, ten captions of each
    nocaps/nocaps_test_image_info.json       images with domain, without captions
    nocaps/images/{val,test}/<open_images_id>.jpg

``in-domain`` images have the shapes of all other images of the web, ``out-domain`` images novel
ones, ``near-domain`` images one group of each. Faults, of ``val``: an image that is not there
(``missing_file``), one whose captions are empty (``empty_text``), one of another domain
(``unknown_label``). Format: https://nocaps.org/download.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from dataprep.miniweb.drawn_images import ImageRenderer, numbered_rng
from dataprep.miniweb.grammar import NOVEL_SHAPES, Scene, capital, caption, random_scene
from dataprep.miniweb.task_images import TaskImage, fault_of, small_image, write_images
from dataprep.miniweb.truth import TaskRow

NOCAPS: Final = "nocaps"
_FILES: Final = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
_DOMAINS: Final = ("in-domain", "near-domain", "out-domain")
_CAPTIONS: Final = 10
_SOURCE: Final = 25
_FAULTS: Final = ("missing_file", "empty_text", "unknown_label")
_UNKNOWN_DOMAIN: Final = "elsewhere"


def write_nocaps(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[TaskRow]:
    """Write ``nocaps/`` with ``number`` images, half of them for testing."""
    rows, images = list[TaskRow](), list[TaskImage]()
    written: dict[str, list[dict[str, Any]]] = {split: [] for split in _FILES}
    annotations = list[dict[str, Any]]()
    for i in range(number):
        rng = numbered_rng(seed, _SOURCE, i)
        split, domain = ("val", "test")[i % 2], _DOMAINS[int(rng.integers(len(_DOMAINS)))]
        scene = _scene(domain, rng)
        outcome = fault_of(i // 2, "test" if split == "test" else "dev", _FAULTS)
        texts = [f"{capital(caption(scene, rng))}." for _ in range(_CAPTIONS)]
        image_id, open_images_id = len(written[split]), f"{7_919 * (i + 1):016x}"
        place = f"{NOCAPS}/images/{split}/{open_images_id}.jpg"
        drawn = small_image(scene, rng, (seed, _SOURCE, i))
        images.append(TaskImage(folder / place, drawn, outcome))
        written[split].append(
            {
                "license": 0,
                "file_name": f"{open_images_id}.jpg",
                "coco_url": f"http://cdn.miniweb.test/{split}/{open_images_id}.jpg",
                "height": drawn.height,
                "width": drawn.width,
                "date_captured": "2018-11-06 11:04:33",
                "open_images_id": open_images_id,
                "id": image_id,
                "domain": _UNKNOWN_DOMAIN if outcome == "unknown_label" else domain,
            }
        )
        if split == "val":
            given = [""] * _CAPTIONS if outcome == "empty_text" else texts
            first = len(annotations)
            annotations += [
                {"image_id": image_id, "id": first + j, "caption": text}
                for j, text in enumerate(given)
            ]
        kept = () if outcome == "empty_text" else tuple(texts)
        label = written[split][-1]["domain"]
        rows.append(TaskRow(NOCAPS, split, str(image_id), outcome, (place,), kept, label))
    write_images(renderer, images)
    for split, entries in written.items():
        found = {"licenses": [], "info": _info(split), "images": entries}
        more = {"annotations": annotations} if split == "val" else {}
        (folder / NOCAPS).mkdir(exist_ok=True)
        (folder / NOCAPS / _FILES[split]).write_text(json.dumps(found | more))
    return rows


def _scene(domain: str, rng: np.random.Generator) -> Scene:
    """Draw a scene whose novel shapes are those of the domain."""
    scene = random_scene(rng, 2 if domain == "near-domain" else None)
    novel = [str(shape) for shape in rng.permutation(NOVEL_SHAPES)]
    num_novel = {"in-domain": 0, "near-domain": 1, "out-domain": len(scene.groups)}[domain]
    groups = [
        replace(group, shape=novel[j]) if j < num_novel else group
        for j, group in enumerate(scene.groups)
    ]
    return replace(scene, groups=tuple(groups))


def _info(split: str) -> dict[str, Any]:
    return {
        "url": "http://nocaps.org",
        "date_created": "2018/11/06",
        "version": "0.1",
        "description": f"nocaps {split} of the miniature web",
        "contributor": "the miniature web",
        "year": 2018,
    }
