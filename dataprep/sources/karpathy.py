"""Karpathy's splits of captioned images: one JSON file per dataset.

Each entry of ``images`` holds ``filename``, ``split`` (train, restval, val or test),
``sentences[].raw``, and the dataset's own fields (see ``coco.py`` and ``flickr30k.py``).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import (
    AnnotatedImage,
    json_elements,
    readable,
)
from dataprep.text import clean_caption

_FIELDS: Final = {"filename": str, "split": str, "sentences": list}


def images_of(path: Path, more: Mapping[str, type]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield (entry, what is wrong with it or None) in the file's order.

    Args:
        path: path of the file.
        more: required fields besides those of every such file, by type.

    Raises:
        AnnotationError: the file has another format.
    """
    entries = json_elements(path, "images", "a file of Karpathy's splits")
    for i, image in enumerate(entries):
        problem = _problem(image, {**_FIELDS, **more})
        where = f"images[{i}]"
        yield (image if isinstance(image, dict) else {}), problem and f"{where}: {problem}"


def annotated(
    path: Path,
    more: Mapping[str, type],
    splits: Collection[str],
    make: Callable[[Mapping[str, Any]], AnnotatedImage],
) -> Iterator[AnnotatedImage]:
    """Return the images of the given splits as they are read.

    An entry that cannot be read is in all splits.

    Raises:
        AnnotationError: the file has another format, or no entry can be read.
    """

    def found(i: int, image: dict[str, Any], problem: str | None) -> AnnotatedImage | None:
        if isinstance(split := image.get("split"), str) and split not in splits:
            return None
        return AnnotatedImage(f"entry-{i}") if problem else make(image)

    entries = enumerate(images_of(path, more))
    return readable(((found(i, image, bad), bad) for i, (image, bad) in entries), path)


def captions_of(image: Mapping[str, Any]) -> list[str]:
    """Return the cleaned captions of an entry, without empty ones."""
    return [c for s in image["sentences"] if (c := clean_caption(s["raw"]))]


def _problem(image: Any, fields: Mapping[str, type]) -> str | None:
    if not isinstance(image, dict):
        return "not an object"
    for key, kind in fields.items():
        if not isinstance(image.get(key), kind) or isinstance(image[key], bool):
            return f"{key} is {image.get(key)!r}, expected {kind.__name__}"[:200]
    if not all(isinstance(s, dict) and isinstance(s.get("raw"), str) for s in image["sentences"]):
        return "a sentence without raw"
    return None
