"""WebDataset tars, such as img2dataset's output."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.sources import webdataset
from dataprep.sources.entries import EMPTY_CAPTION
from dataprep.sources.zips import MISSING_FILE
from orchestration import Slice
from orchestration.params import EXTERNAL_FILE
from orchestration.storage.store import Store
from pipelines.ingest.file_slices import file_per_slice
from pipelines.ingest.import_images import ImageArchive
from pipelines.ingest.source import Kind
from pipelines.ingest.store_images import Found, refuse


class WebDataset(ImageArchive):
    """WebDataset tars, such as img2dataset's output; a tar is a slice."""

    kind: ClassVar[Kind] = "pairs"

    format: Literal["webdataset"]
    "A folder of tars; the files of a sample share their name up to the first dot."
    folder: Annotated[str, EXTERNAL_FILE]
    "Path of the folder of tars."

    def slices(self, folder: Store) -> Iterable[Slice]:
        """See :class:`ImageArchive`."""
        return file_per_slice(Path(self.folder), "*.tar")

    def find(self, piece: Slice, folder: Store) -> Iterator[Found]:
        """See :class:`ImageArchive`."""
        tar = piece.payload["name"]
        for sample in webdataset.read_tar(Path(self.folder) / tar):
            name = f"{Path(tar).with_suffix('')}/{sample.name}"
            if sample.problem:
                read = partial(refuse, webdataset.DAMAGED_TAR, sample.problem)
            elif sample.image is None:
                read = partial(refuse, MISSING_FILE, "no image")
            elif not sample.caption:
                read = partial(refuse, EMPTY_CAPTION, "no caption")
            else:
                read = partial(bytes, sample.image)
            yield Found(name, f"{tar}: {sample.name}", read, [sample.caption])
