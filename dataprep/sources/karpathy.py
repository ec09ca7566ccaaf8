"""Karpathy's splits of captioned images: one JSON file per dataset.

Each entry of ``images`` holds ``filename``, ``split`` (train, restval, val or test),
``sentences[].raw``, and the dataset's own fields (see ``coco.py`` and ``flickr30k.py``).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import (
    AnnotatedImage,
    AnnotationError,
    check_readable,
    read_json,
    with_distinct_names,
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
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise AnnotationError(f"{path}: not a file of Karpathy's splits (no list of images)")
    for i, image in enumerate(images):
        problem = _problem(image, {**_FIELDS, **more})
        where = f"images[{i}]"
        yield (image if isinstance(image, dict) else {}), problem and f"{where}: {problem}"


def annotated(
    path: Path,
    more: Mapping[str, type],
    splits: Collection[str],
    make: Callable[[Mapping[str, Any]], AnnotatedImage],
) -> list[AnnotatedImage]:
    """Return the images of the given splits; an entry that cannot be read is in all of them.

    Raises:
        AnnotationError: the file has another format, or no entry can be read.
    """
    result, entries = [], list(images_of(path, more))
    check_readable([problem for _, problem in entries], path)
    for i, (image, problem) in enumerate(entries):
        if isinstance(split := image.get("split"), str) and split not in splits:
            continue
        bad = AnnotatedImage(f"entry-{i}", problem=problem)
        result.append(bad if problem else make(image))
    return with_distinct_names(result)


def captions_of(image: Mapping[str, Any]) -> list[str]:
    """Return the cleaned captions of an entry, without empty ones."""
    return [c for s in image["sentences"] if (c := clean_caption(s["raw"]))]


def _problem(image: Any, fields: Mapping[str, type]) -> str | None:
    if not isinstance(image, dict):
        return "not an object"
    for key, kind in fields.items():
        if not isinstance(image.get(key), kind):
            return f"{key} is {image.get(key)!r}, expected {kind.__name__}"[:200]
    if not all(isinstance(s, dict) and isinstance(s.get("raw"), str) for s in image["sentences"]):
        return "a sentence without raw"
    return None
