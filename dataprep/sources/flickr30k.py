"""Flickr30K in Karpathy's split: ``dataset_flickr30k.json`` and the folder ``flickr30k-images``.

The JSON file has the format of ``karpathy.py``; its additional fields are not used. Each image has
several captions, and its name is the file name without the extension.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from dataprep.sources.annotations import AnnotatedImage
from dataprep.sources.karpathy import annotated, captions_of


def read_flickr30k(path: Path, splits: Collection[str]) -> Iterator[AnnotatedImage]:
    """Return the images of the given splits as they are read, in the file's order.

    Raises:
        AnnotationError: the file has another format, or no entry can be read.
    """
    return annotated(
        path,
        {},
        splits,
        lambda image: AnnotatedImage(
            name=Path(image["filename"]).stem,
            member=image["filename"],
            captions=captions_of(image),
        ),
    )
