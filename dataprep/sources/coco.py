"""COCO captions in Karpathy's split: ``dataset_coco.json``, ``train2014.zip`` and ``val2014.zip``.

An entry has the fields of ``karpathy.py``, and ``filepath`` (the folder in the archive) and
``cocoid``. Training uses the splits train and restval.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from dataprep.sources.annotations import AnnotatedImage
from dataprep.sources.karpathy import captions_of, images_of

_FIELDS: Final = {"cocoid": int, "filepath": str}


def read_coco(path: Path, splits: Collection[str]) -> list[AnnotatedImage]:
    """Return the images of the given splits, in the file's order.

    Raises:
        AnnotationError: the file has another format; the message names the entry.
    """
    return [
        AnnotatedImage(
            name=str(image["cocoid"]),
            member=f"{image['filepath']}/{image['filename']}",
            captions=captions_of(image),
        )
        for image in images_of(path, _FIELDS)
        if image["split"] in splits
    ]


def evaluation_ids(path: Path) -> set[int]:
    """Return the COCO ids of the images that captioning and retrieval evaluate on (val and test).

    Raises:
        AnnotationError: the file has another form.
    """
    images = images_of(path, _FIELDS)
    return {int(image["cocoid"]) for image in images if image["split"] in ("val", "test")}
