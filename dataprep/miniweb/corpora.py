"""Builds the miniature web in a folder: the files of each source and the expected outcomes.

A source whose size is zero has no files. ``images/`` holds what the server sends. The modules
``lists``, ``edge_cases``, ``archives``, ``annotated``, ``texts`` and ``wikipedia`` document the
files of each source, ``vqa``, ``nlvr2``, ``retrieval``, ``nocaps``, ``coco_instances``,
``ade20k``, ``imagenet1k`` and ``glue`` those of downstream tasks, ``truth`` the expected outcomes.
The same parameters give the same bytes, so a web that is built again keeps its fingerprints.
"""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dataprep.miniweb import (
    ade20k,
    annotated,
    archives,
    coco_instances,
    edge_cases,
    glue,
    imagenet1k,
    lists,
    nlvr2,
    nocaps,
    retrieval,
    texts,
    vqa,
    wikipedia,
)
from dataprep.miniweb.drawn_images import ImageRenderer
from dataprep.miniweb.server_behaviors import DELAYS, HOSTS, MISBEHAVIORS, PLACEHOLDER
from dataprep.miniweb.truth import (
    TASK_TRUTH,
    TEXT_TRUTH,
    TRUTH,
    Row,
    TaskRow,
    TextRow,
    Written,
    write_truth,
)

__all__ = [
    "DELAYS", "HOSTS", "MISBEHAVIORS", "PLACEHOLDER", "TASK_TRUTH", "TEXT_TRUTH", "TRUTH",
    "WebSize", "build",
]  # fmt: skip

_DONE: Final = "built.json"
_VERSION: Final = 5
"Must be raised when the same size would give other bytes."


@dataclass(frozen=True)
class WebSize:
    """Size of each source: its number of list rows, images, pages or documents."""

    seed: int
    num_cc3m: int
    num_cc12m: int
    num_classes: int
    num_images_per_class: int
    num_documents: int
    num_sbu: int = 0
    num_sbu_json: int = 0
    num_own: int = 0
    num_coco: int = 0
    num_visual_genome: int = 0
    num_webdataset: int = 0
    num_wikipedia: int = 0
    num_openwebtext: int = 0
    num_books: int = 0
    num_vqa: int = 0
    num_nlvr2: int = 0
    num_coco_retrieval: int = 0
    num_flickr30k: int = 0
    num_nocaps: int = 0
    num_imagenet1k_classes: int = 0
    num_images_per_imagenet1k_class: int = 0
    num_glue: int = 0
    num_coco_instances: int = 0
    num_ade20k: int = 0


def build(folder: Path, size: WebSize) -> None:
    """Write the web into ``folder``, unless the folder already holds a web of that size.

    Args:
        folder: folder of the web; replaced if it holds a web of another size.
        size: size of each source.
    """
    done = folder / _DONE
    record = json.dumps({"version": _VERSION, **asdict(size)})
    if done.exists() and done.read_text() == record:
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        renderer = ImageRenderer(pool)
        rows = _write_images(folder, size, renderer)
        tasks = _write_tasks(folder, size, renderer)
    write_truth(folder, rows, _write_texts(folder, size), tasks)
    done.write_text(record)


def _write_images(folder: Path, size: WebSize, renderer: ImageRenderer) -> list[Row]:
    seed = size.seed
    lists.write_placeholder(folder, seed, renderer)
    cc3m = lists.write_conceptual(folder, "cc3m", size.num_cc3m, seed, renderer)
    cc12m = lists.write_conceptual(folder, "cc12m", size.num_cc12m, seed, renderer)
    classes, images = size.num_classes, size.num_images_per_class
    imagenet = archives.write_imagenet(folder, classes, images, seed, renderer)
    rows, coco = [*cc3m.rows, *cc12m.rows, *imagenet], Written()
    if number := size.num_coco:
        coco = annotated.write_coco(folder, number, seed, renderer)
        rows += coco.rows
    if number := size.num_visual_genome:
        rows += annotated.write_visual_genome(folder, number, seed, renderer, coco.originals)
    if number := size.num_webdataset:
        rows += archives.write_webdataset(folder, number, seed, renderer)
    if number := size.num_sbu:
        rows += lists.write_sbu(folder, number, seed, renderer)
    if number := size.num_sbu_json:
        rows += lists.write_sbu_json(folder, number, seed, renderer)
    if number := size.num_own:
        training, evaluation = annotated.split_by_use(coco.originals)
        originals = {"cc3m": cc3m.originals, "coco": training, annotated.EVALUATED: evaluation}
        rows += edge_cases.write_own(folder, number, seed, renderer, originals)
    return rows


def _write_texts(folder: Path, size: WebSize) -> list[TextRow]:
    rows = texts.write_documents(folder, size.num_documents, size.seed)
    for number, write in (
        (size.num_wikipedia, wikipedia.write_wikipedia),
        (size.num_openwebtext, texts.write_openwebtext),
        (size.num_books, texts.write_books),
    ):
        if number:
            rows += write(folder, number, size.seed)
    return rows


def _write_tasks(folder: Path, size: WebSize, renderer: ImageRenderer) -> list[TaskRow]:
    rows = list[TaskRow]()
    for number, write in (
        (size.num_vqa, vqa.write_vqa),
        (size.num_nlvr2, nlvr2.write_nlvr2),
        (size.num_coco_retrieval, retrieval.write_coco_retrieval),
        (size.num_flickr30k, retrieval.write_flickr30k),
        (size.num_nocaps, nocaps.write_nocaps),
        (size.num_coco_instances, coco_instances.write_coco_instances),
        (size.num_ade20k, ade20k.write_ade20k),
    ):
        if number:
            rows += write(folder, number, size.seed, renderer)
    classes, images = size.num_imagenet1k_classes, size.num_images_per_imagenet1k_class
    if classes and images:
        rows += imagenet1k.write_imagenet1k(folder, classes, images, size.seed, renderer)
    if number := size.num_glue:
        rows += glue.write_glue(folder, number, size.seed)
    return rows
