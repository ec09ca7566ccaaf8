"""WebDataset tars, such as img2dataset's output."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.sources import webdataset
from dataprep.sources.folders import files_in
from dataprep.sources.lines import ListError
from dataprep.sources.names import safe_name
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
    file_errors: ClassVar = (ListError,)

    format: Literal["webdataset"]
    "A folder of tars, plain or compressed; a sample's files share the name up to the first dot."
    folder: Annotated[str, EXTERNAL_FILE]
    "Path of the folder of tars."

    def slices(self, folder: Store) -> Iterable[Slice]:
        """See :class:`ImageArchive`."""
        return file_per_slice(Path(self.folder), *webdataset.PATTERNS)

    def expected_rows(self) -> None:
        """See :class:`ImageArchive`; checks that there are tars."""
        files_in(Path(self.folder), *webdataset.PATTERNS)

    def find(self, slice_: Slice, folder: Store) -> Iterator[Found]:
        """See :class:`ImageArchive`."""
        tar = slice_.payload["name"]
        name = safe_name(tar)
        for sample in webdataset.read_tar(Path(self.folder) / tar):
            read = (
                partial(refuse, sample.reason, sample.detail)
                if sample.reason
                else partial(bytes, sample.image or b"")
            )
            sample_id = f"{name.removesuffix('.tar')}/{sample.name}"
            yield Found(sample_id, f"{name}: {sample.name}", read, sample.captions)
