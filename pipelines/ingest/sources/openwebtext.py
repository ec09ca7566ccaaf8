"""OpenWebText: the folder of its inner archives, ``urlsf_subset*.xz``."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from dataprep.sources.documents import Documents
from dataprep.sources.folders import files_in
from dataprep.sources.openwebtext import read_archive
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import file_slices


class OpenWebText(Corpus):
    """OpenWebText; some inner archives are a slice."""

    license: ClassVar = "the collection CC0; each page under its owner's terms"

    format: Literal["openwebtext"]
    "A folder of xz-compressed tars, as in the outer archive."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        return file_slices(Path(self.file), "*.xz", num_bytes=self.slice_bytes)

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        for name in slice_.payload["names"]:
            yield from read_archive(Path(self.file), name)

    def expected_rows(self) -> None:
        """See :class:`Corpus`; checks that there are archives."""
        files_in(Path(self.file), "*.xz")
