"""Parquet: a document per row."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dataprep.sources.documents import Documents, read_parquet
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import joined_row_groups, parquet_rows


class Parquet(Corpus):
    """Parquet: a document per row; some row groups are a slice."""

    format: Literal["parquet"]
    "A Parquet file with a document per row, or a folder of such files."
    column: str = "text"
    "Name of the column that holds the text."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        return joined_row_groups(Path(self.file), self.column, self.slice_bytes)

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        path, row = Path(self.file) / slice_.payload["part"], slice_.payload["first_row"]
        for group, num_rows in enumerate(slice_.payload["rows"], start=slice_.payload["group"]):
            yield from read_parquet(path, group, row, self.column)
            row += num_rows

    def expected_rows(self) -> int:
        """See :class:`Corpus`."""
        return parquet_rows(Path(self.file), [self.column])
