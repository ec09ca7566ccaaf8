"""COCO captions in Karpathy's split: ``dataset_coco.json``, ``train2014.zip`` and ``val2014.zip``.

An entry has the fields of ``karpathy.py``, and ``filepath`` (the folder in the archive) and
``cocoid``. Training uses the splits train and restval.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from dataprep.sources.annotations import AnnotatedImage, AnnotationError
from dataprep.sources.karpathy import annotated, captions_of, images_of

_FIELDS: Final = {"cocoid": int, "filepath": str}


def read_coco(path: Path, splits: Collection[str]) -> Iterator[AnnotatedImage]:
    """Return the images of the given splits as they are read, in the file's order.

    Raises:
        AnnotationError: the file has another format, or no entry can be read.
    """
    return annotated(
        path,
        _FIELDS,
        splits,
        lambda image: AnnotatedImage(
            name=str(image["cocoid"]),
            member=f"{image['filepath']}/{image['filename']}",
            captions=captions_of(image),
        ),
    )


def evaluation_ids(path: Path) -> set[int]:
    """Return the COCO ids of the images that captioning and retrieval evaluate on (val and test).

    Raises:
        AnnotationError: the file has another format, or an entry cannot be read: an image that is
            evaluated on must not be missed.
    """
    result = set()
    for image, problem in images_of(path, _FIELDS):
        if problem:
            raise AnnotationError(f"{path}: {problem}")
        if image["split"] in ("val", "test"):
            result.add(int(image["cocoid"]))
    return result
