"""OpenWebText: the folder of its inner archives, ``urlsf_subset*.xz``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dataprep.sources.documents import Documents
from dataprep.sources.folders import files_in
from dataprep.sources.openwebtext import read_archive
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import file_per_slice


class OpenWebText(Corpus):
    """OpenWebText; an inner archive is a slice."""

    format: Literal["openwebtext"]
    "A folder of xz-compressed tars, as in the outer archive."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        return file_per_slice(Path(self.file), "*.xz")

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        return read_archive(Path(self.file), slice_.payload["name"])

    def expected_rows(self) -> None:
        """See :class:`Corpus`; checks that there are archives."""
        files_in(Path(self.file), "*.xz")
