"""Karpathy's splits of captioned images: one JSON file per dataset.

Each entry of ``images`` holds ``filename``, ``split`` (train, restval, val or test),
``sentences[].raw``, and the dataset's own fields (see ``coco.py`` and ``flickr30k.py``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import AnnotationError, read_json
from dataprep.text import clean_caption

_FIELDS: Final = {"filename": str, "split": str, "sentences": list}


def images_of(path: Path, more: Mapping[str, type]) -> list[dict[str, Any]]:
    """Return the entries of a file in order; ``more`` names further required fields by type.

    Raises:
        AnnotationError: the file has another format; the message names the entry.
    """
    content = read_json(path)
    try:
        images = content["images"]
        for i, image in enumerate(images):
            _check(image, {**_FIELDS, **more}, f"{path}: images[{i}]")
    except (KeyError, TypeError) as error:
        raise AnnotationError(f"{path}: not a file of Karpathy's splits ({error!r})") from None
    return list(images)


def captions_of(image: Mapping[str, Any]) -> list[str]:
    """Return the cleaned captions of an entry, without empty ones."""
    return [c for s in image["sentences"] if (c := clean_caption(s["raw"]))]


def _check(image: Any, fields: Mapping[str, type], where: str) -> None:
    if not isinstance(image, dict):
        raise AnnotationError(f"{where}: not an object")
    for key, kind in fields.items():
        if not isinstance(image.get(key), kind):
            raise AnnotationError(f"{where}: {key} is {image.get(key)!r}, expected {kind.__name__}")
    if not all(isinstance(s, dict) and isinstance(s.get("raw"), str) for s in image["sentences"]):
        raise AnnotationError(f"{where}: a sentence without raw")
