"""Conceptual Captions 3M: ``Train_GCC-training.tsv``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dataprep.sources.conceptual import read_cc3m
from dataprep.sources.lines import LineRange
from orchestration import Slice
from pipelines.ingest.file_slices import line_slices
from pipelines.ingest.index import Entries, PairList


class Cc3m(PairList):
    """Conceptual Captions 3M."""

    format: Literal["cc3m"]
    "A TSV file with a caption and a URL per line."

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        return line_slices(Path(self.list), self.slice_lines)

    def entries(self, piece: Slice) -> Entries:
        """See :class:`PairList`."""
        return read_cc3m(Path(self.list), LineRange(**piece.payload))
