"""COCO captions in Karpathy's split: ``dataset_coco.json`` and the zip archives of 2014."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.sources.annotations import AnnotatedImage
from dataprep.sources.coco import read_coco
from orchestration.params import EXTERNAL_FILE
from pipelines.ingest.annotated_images import AnnotatedImages


class Coco(AnnotatedImages):
    """COCO captions in Karpathy's split."""

    license: ClassVar = "annotations CC BY 4.0; each image under its license on Flickr"

    format: Literal["coco"]
    "Karpathy's `dataset_coco.json` and the two zip archives of images."
    train_images: Annotated[str, EXTERNAL_FILE]
    "Path of `train2014.zip`."
    val_images: Annotated[str, EXTERNAL_FILE]
    "Path of `val2014.zip`."
    splits: tuple[Literal["train", "restval", "val", "test"], ...] = ("train", "restval")
    "Karpathy's splits to import."

    def read_annotations(self, members: Collection[str]) -> Iterator[AnnotatedImage]:
        """See :class:`AnnotatedImages`."""
        return read_coco(Path(self.annotations), self.splits)

    def archives(self) -> Sequence[Path]:
        """See :class:`AnnotatedImages`."""
        return [Path(self.train_images), Path(self.val_images)]
