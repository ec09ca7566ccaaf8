"""JSON lines: a document per line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from dataprep.sources.documents import Documents, read_jsonl
from dataprep.sources.lines import LineRange, about_lines
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import line_slices


class JsonLines(Corpus):
    """JSON lines: a document per line."""

    format: Literal["jsonl"]
    "A text file with a JSON object per line."
    field: str = "text"
    "Name of the key that holds the text."
    slice_lines: int = Field(default=20_000, ge=1)
    "Number of lines per slice."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        return line_slices(Path(self.file), self.slice_lines)

    def documents(self, piece: Slice) -> Documents:
        """See :class:`Corpus`."""
        return read_jsonl(Path(self.file), LineRange(**piece.payload), self.field)

    def expected_rows(self) -> int | None:
        """See :class:`Corpus`."""
        path = Path(self.file)
        return about_lines(path) if path.is_file() else None
