"""Own lists of pairs: CSV, TSV, JSON lines or Parquet, with named columns."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from dataprep.sources import own_lists
from dataprep.sources.lines import LineRange
from orchestration import Slice
from pipelines.ingest.file_slices import line_slices, parquet_rows, row_group_slices
from pipelines.ingest.index import Entries, PairList


class OwnList(PairList):
    """An own list of pairs with named columns."""

    file_errors: ClassVar = (own_lists.ColumnError,)

    url_column: str = "url"
    "Name of the column or key that holds the image's URL."
    caption_column: str = "caption"
    "Name of the column or key that holds the caption."

    @property
    def columns(self) -> Sequence[str]:
        """The columns that are read."""
        return self.url_column, self.caption_column


class OwnTable(OwnList):
    """An own list of pairs, as CSV or TSV."""

    format: Literal["csv", "tsv"]
    "A CSV or TSV file whose first line names the columns."

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        path = Path(self.list)
        own_lists.check_columns(path, own_lists.header(path, self.format), self.columns)
        return line_slices(path, self.slice_lines)

    def entries(self, piece: Slice) -> Entries:
        """See :class:`PairList`."""
        lines = LineRange(**piece.payload)
        return own_lists.read_text(Path(self.list), self.format, lines, *self.columns)


class OwnJsonLines(OwnList):
    """An own list of pairs, as JSON lines."""

    format: Literal["jsonl_pairs"]
    "A text file with a JSON object per line."

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        return line_slices(Path(self.list), self.slice_lines)

    def entries(self, piece: Slice) -> Entries:
        """See :class:`PairList`."""
        lines = LineRange(**piece.payload)
        return own_lists.read_text(Path(self.list), "jsonl", lines, *self.columns)


class OwnParquet(OwnList):
    """An own list of pairs, as Parquet; a row group is a slice."""

    format: Literal["parquet_pairs"]
    "A Parquet file with a row per pair."

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        return row_group_slices(Path(self.list), self.columns)

    def entries(self, piece: Slice) -> Entries:
        """See :class:`PairList`."""
        group, first_row = piece.payload["group"], piece.payload["first_row"]
        return own_lists.read_parquet(Path(self.list), group, first_row, *self.columns)

    def expected_rows(self) -> int:
        """See :class:`PairList`."""
        return parquet_rows(Path(self.list))
