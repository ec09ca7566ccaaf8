"""A folder of images, each in a file of its own.

Every file of the folder ends as an image or as a reject; links are followed.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dataprep.sources.folders import FolderFiles, files_in
from dataprep.sources.lines import ListError
from dataprep.sources.names import safe_name
from orchestration import Slice
from orchestration.params import EXTERNAL_FILE
from orchestration.slices import name_slices
from orchestration.storage.store import Store
from pipelines.ingest.import_images import ImageArchive
from pipelines.ingest.source import Kind
from pipelines.ingest.store_images import Found


class ImageFolder(ImageArchive):
    """A folder of your own images, with or without labels."""

    kind: ClassVar[Kind] = "images"
    file_errors: ClassVar = (ListError,)

    format: Literal["image_folder"]
    "A folder with an image per file."
    folder: Annotated[str, EXTERNAL_FILE]
    "Path of the folder; subfolders are searched too."
    labels: bool = False
    "Whether an image's first subfolder is its label, as in an unpacked ImageNet."
    slice_files: int = Field(default=2048, ge=1)
    "Number of files per slice."

    def slices(self, folder: Store) -> Sequence[Slice]:
        """See :class:`ImageArchive`."""
        return name_slices(files_in(Path(self.folder), "*"), self.slice_files)

    def expected_rows(self) -> int:
        """See :class:`ImageArchive`."""
        return len(files_in(Path(self.folder), "*"))

    def find(self, slice_: Slice, folder: Store) -> Iterator[Found]:
        """See :class:`ImageArchive`."""
        reader = FolderFiles(Path(self.folder))
        for name in slice_.payload["names"]:
            shown = safe_name(name)
            path = shown.split("/")
            label = path[0] if self.labels and len(path) > 1 else ""
            # The name keeps its suffix: a.jpg and a.png are two images.
            yield Found(shown, shown, partial(reader.read, name), label=label)
