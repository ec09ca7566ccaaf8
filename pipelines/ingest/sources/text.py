"""Plain text: a file with a document per line, or a folder with a document per file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from dataprep.sources.documents import Documents, read_text_files, read_text_lines
from dataprep.sources.folders import files_in
from dataprep.sources.lines import LineRange, about_lines
from orchestration import Slice
from orchestration.slices import name_slices
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import line_slices


class Text(Corpus):
    """Plain text: a file with a document per line, or a folder with a document per file."""

    format: Literal["txt"]
    "A text file with a document per line, or a folder of .txt files."
    slice_lines: int = Field(default=20_000, ge=1)
    "Number of lines per slice, for a file."
    slice_files: int = Field(default=256, ge=1)
    "Number of files per slice, for a folder."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        path = Path(self.file)
        if path.is_dir():
            return name_slices(files_in(path, "*.txt"), self.slice_files)
        return line_slices(path, self.slice_lines)

    def documents(self, piece: Slice) -> Documents:
        """See :class:`Corpus`."""
        if "names" in piece.payload:
            return read_text_files(Path(self.file), piece.payload["names"])
        return read_text_lines(Path(self.file), LineRange(**piece.payload))

    def expected_rows(self) -> int | None:
        """See :class:`Corpus`."""
        path = Path(self.file)
        return about_lines(path) if path.is_file() else None
