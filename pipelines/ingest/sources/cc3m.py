"""Conceptual Captions 3M: ``Train_GCC-training.tsv``."""

from pathlib import Path
from typing import ClassVar, Literal

from dataprep.sources.conceptual import read_cc3m
from dataprep.sources.lines import LineRange
from pipelines.ingest.file_slices import text_patterns
from pipelines.ingest.index import Entries
from pipelines.ingest.line_lists import LineList


class Cc3m(LineList):
    """Conceptual Captions 3M."""

    license: ClassVar = (
        "free for any purpose, with credit to Google; each image under its owner's terms"
    )
    patterns: ClassVar = text_patterns(".tsv")

    format: Literal["cc3m"]
    "A TSV file with a caption and a URL per line."

    def read_lines(self, path: Path, lines: LineRange) -> Entries:
        """See :class:`LineList`."""
        return read_cc3m(path, lines)
