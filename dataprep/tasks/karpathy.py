"""Captioned images in Karpathy's splits: an image with all of its captions.

The files are those of ``dataprep/sources/karpathy.py``.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import MALFORMED_ENTRY
from dataprep.sources.karpathy import captions_of, images_of
from dataprep.tasks.example import (
    EMPTY_TEXT,
    UNKNOWN_SPLIT,
    Example,
    bad,
    checked,
    example_of,
)

SPLITS: Final = ("train", "restval", "val", "test")
_COCO_FIELDS: Final = {"cocoid": int, "filepath": str}


def read_coco_captions(path: Path, splits: Collection[str]) -> Iterator[Example]:
    """Yield the images of the given splits of ``dataset_coco.json``; the id is COCO's.

    An entry of no known split is a reject of all splits.

    Raises:
        AnnotationError: the file has another format.
        ListError: no entry can be read.
    """
    return _read(path, splits, _COCO_FIELDS)


def read_flickr30k_captions(path: Path, splits: Collection[str]) -> Iterator[Example]:
    """Yield the images of the given splits of ``dataset_flickr30k.json``; the id is the file's.

    Otherwise as :func:`read_coco_captions`.
    """
    return _read(path, splits, {})


def _read(path: Path, splits: Collection[str], fields: Mapping[str, type]) -> Iterator[Example]:
    make = partial(_example, name=path.name, splits=splits)
    entries = enumerate(images_of(path, fields))
    found = (make(i, image, problem) for i, (image, problem) in entries)
    return checked((example for example in found if example is not None), path)


def _example(
    number: int, image: Mapping[str, Any], problem: str | None, name: str, splits: Collection[str]
) -> Example | None:
    """Return the example of an entry; None if it is of another split."""
    split, where = image.get("split"), f"{name}: images[{number}]"
    if isinstance(split, str) and split in SPLITS and split not in splits:
        return None
    if problem:
        return bad(f"entry-{number}", name, MALFORMED_ENTRY, problem)
    id_ = str(image["cocoid"]) if "cocoid" in image else Path(image["filename"]).stem
    if split not in SPLITS:
        return bad(id_, where, UNKNOWN_SPLIT, f"split = {split}, expected {', '.join(SPLITS)}")
    if not (captions := captions_of(image)):
        return bad(id_, where, EMPTY_TEXT, "no caption")
    folder = f"{image['filepath']}/" if "filepath" in image else ""
    return example_of(id_, where, images=[f"{folder}{image['filename']}"], texts=captions)
