"""Flickr30K in Karpathy's split: ``dataset_flickr30k.json`` and the folder ``flickr30k-images``.

31,014 images, of which val has 1,014 and test 1,000; each has five captions. The JSON file is one
of ``karpathy.py``'s and adds nothing that is used.
"""

from collections.abc import Collection
from pathlib import Path

from dataprep.sources.annotations import Annotated
from dataprep.sources.karpathy import captions_of, images_of


def read_flickr30k(path: Path, splits: Collection[str]) -> list[Annotated]:
    """Return the images of some splits, in the file's order.

    Raises:
        AnnotationError: the file has another form; the message names the entry.
    """
    return [
        Annotated(
            name=Path(image["filename"]).stem,
            member=image["filename"],
            captions=captions_of(image),
        )
        for image in images_of(path, {})
        if image["split"] in splits
    ]
