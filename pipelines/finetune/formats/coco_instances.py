"""Objects with boxes and masks in COCO's JSON: COCO, Objects365, and own annotations."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.tasks.coco_instances import check_coco_instances, read_coco_instances
from dataprep.tasks.example import Example
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.finetune.formats.format import PublishedImageFormat


class CocoInstances(PublishedImageFormat):
    """Images with objects."""

    tasks: ClassVar = frozenset({"detection"})

    format: Literal["coco_instances"]
    "COCO's JSON of objects, as COCO and Objects365 publish it, or own annotations in this form."
    annotations: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the JSON, such as `instances_train2017.json`."
    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder or zip archive of the images."
    annotated: bool = True
    "Whether the file has annotations; false reads its list of images alone."

    @property
    def has_labels(self) -> bool:
        """See :class:`TaskFormat`."""
        return self.annotated

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_coco_instances(Path(self.annotations), is_labeled=self.annotated)

    def expected_rows(self) -> None:
        """See :class:`TaskFormat`: only both ends of the file are read."""
        check_coco_instances(Path(self.annotations))

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(self.images)]
