"""Own lists of pairs: CSV, TSV, JSON lines or Parquet, with named columns.

The URL of an entry may be the path of a local file, relative to the folder of the list, if the
list is given by path (see ``dataprep.sources.entries``).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from dataprep.sources import own_lists
from dataprep.sources.json_keys import check_keys
from dataprep.sources.lines import LineRange, check_json_lines
from orchestration import Slice
from pipelines.ingest.file_slices import parquet_rows, row_group_slices, text_patterns
from pipelines.ingest.index import Entries, PairList
from pipelines.ingest.line_lists import LineList


class OwnList(PairList):
    """A list of your own pairs with named columns."""

    local_images: ClassVar = True

    url_column: str = "url"
    "Name of the column or key that holds the image's URL or path."
    caption_column: str = "caption"
    "Name of the column or key of the caption; JSON and Parquet may hold a list of captions."
    split_column: str | None = None
    "Name of the column or key of a row's split; where it is empty, the row is split by its group."
    held_out_splits: tuple[str, ...] = ("val", "valid", "validation", "dev", "test", "held_out")
    "Splits that are held out from training, in any letter case; rows of other splits are not."
    group_column: str | None = None
    "Name of the column or key of a row's group; a group is trained on or held out as a whole."

    @property
    def columns(self) -> Sequence[str]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys((self.url_column, self.caption_column, *self.split.names)))

    @property
    def split(self) -> own_lists.SplitColumns:
        """The columns that say which rows are held out."""
        splits = frozenset(split.strip().lower() for split in self.held_out_splits)
        return own_lists.SplitColumns(self.split_column, splits, self.group_column)


class OwnTable(OwnList, LineList):
    """A list of your own pairs, as CSV or TSV."""

    patterns: ClassVar = text_patterns(".csv", ".tsv")

    format: Literal["csv", "tsv"]
    "A CSV or TSV file whose first line names the columns, or a folder of such files."
    quoting: bool | None = None
    "Whether fields may stand in double quotes (RFC 4180); by default, in CSV but not in TSV."

    @property
    def is_quoted(self) -> bool:
        """Whether fields may stand in double quotes."""
        return self.format == "csv" if self.quoting is None else self.quoting

    def check(self, path: Path) -> None:
        """See :class:`LineList`."""
        own_lists.check_columns(
            path, own_lists.header(path, self.format, self.is_quoted), self.columns
        )

    def read_lines(self, path: Path, lines: LineRange) -> Entries:
        """See :class:`LineList`."""
        columns = self.url_column, self.caption_column
        return own_lists.read_table(
            path, self.format, lines, *columns, quoting=self.is_quoted, split=self.split
        )


class OwnJsonLines(OwnList, LineList):
    """A list of your own pairs, as JSON lines."""

    patterns: ClassVar = text_patterns(".jsonl", ".ndjson", ".json")

    format: Literal["jsonl_pairs"]
    "A text file with a JSON object per line, or a folder of such files."

    def check(self, path: Path) -> None:
        """See :class:`LineList`."""
        check_json_lines(path)
        check_keys(path, self.columns)

    def read_lines(self, path: Path, lines: LineRange) -> Entries:
        """See :class:`LineList`."""
        return own_lists.read_jsonl(path, lines, self.url_column, self.caption_column, self.split)


class OwnParquet(OwnList):
    """A list of your own pairs, as Parquet; a row group is a slice."""

    format: Literal["parquet_pairs"]
    "A Parquet file with a row per pair, or a folder of such files."

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        return row_group_slices(Path(self.list), *self._types)

    def entries(self, slice_: Slice) -> Entries:
        """See :class:`PairList`."""
        path, group = Path(self.list) / slice_.payload["part"], slice_.payload["group"]
        columns = self.url_column, self.caption_column
        return own_lists.read_parquet(
            path, group, slice_.payload["first_row"], *columns, self.split
        )

    def expected_rows(self) -> int:
        """See :class:`PairList`."""
        return parquet_rows(Path(self.list), *self._types)

    @property
    def _types(self) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        """The columns of texts, those of them that may hold lists, and those of any type."""
        return (self.url_column, self.caption_column), [self.caption_column], self.split.names
