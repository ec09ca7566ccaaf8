"""JSON lines: a document per line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from dataprep.sources.documents import Documents, read_jsonl
from dataprep.sources.json_keys import check_keys
from dataprep.sources.lines import check_json_lines
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import (
    document_line_slices,
    document_lines_of,
    expected_lines,
    text_patterns,
)

_PATTERNS: Final = text_patterns(".jsonl", ".ndjson", ".json")


class JsonLines(Corpus):
    """JSON lines: a document per line."""

    format: Literal["jsonl"]
    "A text file with a JSON object per line, or a folder of such files."
    field: str = "text"
    "Name of the key that holds the text."
    slice_lines: int = Field(default=20_000, ge=1)
    "Largest number of lines per slice."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        return document_line_slices(
            Path(self.file), _PATTERNS, self.slice_lines, self.slice_bytes, self._check
        )

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        return read_jsonl(*document_lines_of(Path(self.file), slice_), self.field)

    def expected_rows(self) -> int:
        """See :class:`Corpus`."""
        return expected_lines(Path(self.file), _PATTERNS, self._check)

    def _check(self, path: Path) -> None:
        check_json_lines(path)
        check_keys(path, [self.field])
