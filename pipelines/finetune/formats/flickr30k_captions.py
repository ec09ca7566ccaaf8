"""Flickr30K in Karpathy's split, for retrieval."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.tasks.example import Example
from dataprep.tasks.karpathy import read_flickr30k_captions
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.finetune.formats.format import PublishedImageFormat


class Flickr30kCaptions(PublishedImageFormat):
    """Flickr30K's images, each with all of its captions."""

    license: ClassVar = "research and education, not commerce; each image under Flickr's terms"
    tasks: ClassVar = frozenset({"retrieval"})

    format: Literal["flickr30k_captions"]
    "Karpathy's `dataset_flickr30k.json` and the images."
    annotations: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of `dataset_flickr30k.json`."
    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder or zip archive `flickr30k-images`."
    splits: tuple[Literal["train", "val", "test"], ...]
    "Karpathy's splits to read."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_flickr30k_captions(Path(self.annotations), self.splits)

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(self.images)]
