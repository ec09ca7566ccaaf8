"""COCO captions in Karpathy's split: ``dataset_coco.json``, ``train2014.zip`` and ``val2014.zip``.

``images[]`` holds ``filepath`` (the archive's folder), ``filename``, ``split`` (train, restval,
val, test), ``cocoid`` and ``sentences[].raw``. Training takes train and restval: 113,287 pictures.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from dataprep.sources.annotations import Annotated, AnnotationError, read_json
from dataprep.text import clean_caption


def read_coco(path: Path, splits: Collection[str]) -> list[Annotated]:
    """Return the pictures of some splits, in the file's order.

    Raises:
        AnnotationError: the file has another form; the message names the entry.
    """
    return [
        Annotated(
            name=str(image["cocoid"]),
            member=f"{image['filepath']}/{image['filename']}",
            captions=[c for s in image["sentences"] if (c := clean_caption(s["raw"]))],
        )
        for image in _images(path)
        if image["split"] in splits
    ]


def evaluation_ids(path: Path) -> set[int]:
    """Return the COCO ids of the pictures that captioning and retrieval are evaluated on.

    Raises:
        AnnotationError: the file has another form.
    """
    return {int(image["cocoid"]) for image in _images(path) if image["split"] in ("val", "test")}


def _images(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    try:
        images = content["images"]
        for i, image in enumerate(images):
            _check(image, f"{path}: images[{i}]")
    except (KeyError, TypeError) as error:
        raise AnnotationError(f"{path}: not Karpathy's dataset_coco.json ({error!r})") from None
    return list(images)


def _check(image: Any, where: str) -> None:
    wanted = {"cocoid": int, "filepath": str, "filename": str, "split": str, "sentences": list}
    if not isinstance(image, dict):
        raise AnnotationError(f"{where}: not an object")
    for key, kind in wanted.items():
        if not isinstance(image.get(key), kind):
            raise AnnotationError(f"{where}: {key} is {image.get(key)!r}, expected {kind.__name__}")
    if not all(isinstance(s, dict) and isinstance(s.get("raw"), str) for s in image["sentences"]):
        raise AnnotationError(f"{where}: a sentence without raw")
