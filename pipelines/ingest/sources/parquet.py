"""Parquet: a document per row."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dataprep.sources.documents import Documents, read_parquet
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import parquet_rows, row_group_slices


class Parquet(Corpus):
    """Parquet: a document per row; a row group is a slice."""

    format: Literal["parquet"]
    "A Parquet file with a document per row, or a folder of such files."
    column: str = "text"
    "Name of the column that holds the text."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        return row_group_slices(Path(self.file), [self.column])

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        path, group = Path(self.file) / slice_.payload["part"], slice_.payload["group"]
        return read_parquet(path, group, slice_.payload["first_row"], self.column)

    def expected_rows(self) -> int:
        """See :class:`Corpus`."""
        return parquet_rows(Path(self.file), [self.column])
