"""COCO captions in Karpathy's split, for retrieval."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from dataprep.tasks.example import Example
from dataprep.tasks.karpathy import read_coco_captions
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.finetune.formats.format import PublishedImageFormat


class CocoCaptions(PublishedImageFormat):
    """COCO's images, each with all of its captions."""

    license: ClassVar = "annotations CC BY 4.0; each image under its license on Flickr"
    tasks: ClassVar = frozenset({"retrieval"})

    format: Literal["coco_captions"]
    "Karpathy's `dataset_coco.json` and the images of 2014."
    annotations: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of `dataset_coco.json`."
    train_images: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of the folder or zip archive `train2014`; only the split `train` needs it."
    val_images: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of the folder or zip archive `val2014`; every split but `train` needs it."
    splits: tuple[Literal["train", "restval", "val", "test"], ...]
    "Karpathy's splits to read; those of training are `[train, restval]`."

    @model_validator(mode="after")
    def _has_images(self) -> "CocoCaptions":
        if "train" in self.splits and self.train_images is None:
            raise ValueError("train_images is missing, where the images of the split train lie")
        if set(self.splits) - {"train"} and self.val_images is None:
            raise ValueError("val_images is missing, where the images of restval, val and test lie")
        return self

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_coco_captions(Path(self.annotations), self.splits)

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(each) for each in (self.train_images, self.val_images) if each]
