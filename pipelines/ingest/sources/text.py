"""Plain text: a file with a document per line, or a folder with a document per file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from dataprep.sources.documents import Documents, read_text_files, read_text_lines
from dataprep.sources.folders import files_in
from dataprep.sources.lines import check_text
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import (
    document_line_slices,
    document_lines_of,
    expected_lines,
    file_slices,
    text_patterns,
)

_PATTERNS: Final = text_patterns(".txt")


class Text(Corpus):
    """Plain text: a file with a document per line, or a folder with a document per file."""

    format: Literal["txt"]
    "A text file with a document per line, or a folder of .txt files; plain or compressed."
    slice_lines: int = Field(default=20_000, ge=1)
    "Largest number of lines per slice, for a file."
    slice_files: int = Field(default=2048, ge=1)
    "Largest number of files per slice, for a folder."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        path = Path(self.file)
        if path.is_dir():
            return file_slices(
                path, *_PATTERNS, num_bytes=self.slice_bytes, num_files=self.slice_files
            )
        return document_line_slices(path, _PATTERNS, self.slice_lines, self.slice_bytes, check_text)

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        if "names" in slice_.payload:
            return read_text_files(Path(self.file), slice_.payload["names"])
        return read_text_lines(*document_lines_of(Path(self.file), slice_))

    def expected_rows(self) -> int:
        """See :class:`Corpus`."""
        path = Path(self.file)
        if path.is_dir():
            return len(files_in(path, *_PATTERNS))
        return expected_lines(path, _PATTERNS, check_text)
