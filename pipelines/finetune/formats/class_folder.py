"""A folder with a subfolder of images for each class, such as ImageNet's."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.tasks.class_folder import read_class_folder
from dataprep.tasks.example import Example
from orchestration.params import EXTERNAL_FILE
from pipelines.finetune.formats.format import ImageTaskFormat


class ClassFolder(ImageTaskFormat):
    """Images in subfolders named by their class, as in ImageNet's `train/<wnid>/*.JPEG`."""

    tasks: ClassVar = frozenset({"image_classification"})

    format: Literal["class_folder"]
    "A folder or zip archive with a subfolder for each class."
    folder: Annotated[str, EXTERNAL_FILE]
    "Path of the folder or zip archive of the split."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_class_folder(Path(self.folder))

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(self.folder)]
