"""Flickr30K in Karpathy's split: ``dataset_flickr30k.json`` and the folder of images."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.sources.annotations import AnnotatedImage
from dataprep.sources.flickr30k import read_flickr30k
from dataprep.sources.folders import FolderFiles
from dataprep.sources.zips import Member
from orchestration.params import EXTERNAL_FILE
from pipelines.ingest.annotated_images import AnnotatedImages, Reader


class Flickr30k(AnnotatedImages):
    """Flickr30K in Karpathy's split: for `evaluation_sets`, or for fine-tuning."""

    license: ClassVar = "research and education, not commerce; each image under Flickr's terms"

    format: Literal["flickr30k"]
    "Karpathy's `dataset_flickr30k.json` and the folder of images."
    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder `flickr30k-images`."
    splits: tuple[Literal["train", "val", "test"], ...] = ("val", "test")
    "Karpathy's splits to import."

    def read_annotations(self, members: Collection[str]) -> Iterator[AnnotatedImage]:
        """See :class:`AnnotatedImages`."""
        return read_flickr30k(Path(self.annotations), self.splits)

    def archives(self) -> Sequence[Path]:
        """See :class:`AnnotatedImages`."""
        return ()

    def reader(self, members: dict[str, list[Member]]) -> Reader:
        """See :class:`AnnotatedImages`."""
        return FolderFiles(Path(self.images))
