"""NoCaps: captions of images with objects that COCO's captions do not name."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.tasks.example import Example
from dataprep.tasks.nocaps import read_nocaps
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.finetune.formats.format import PublishedImageFormat


class Nocaps(PublishedImageFormat):
    """NoCaps's images, each with all of its captions; those of the test split have none."""

    tasks: ClassVar = frozenset({"captioning"})

    format: Literal["nocaps"]
    "NoCaps's JSON files and images."
    annotations: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of `nocaps_val_4500_captions.json` or `nocaps_test_image_info.json`."
    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder or zip archive of the images."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_nocaps(Path(self.annotations))

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(self.images)]
