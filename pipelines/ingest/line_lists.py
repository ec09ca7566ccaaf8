"""Lists of pairs with an entry per line: what CC3M, CC12M and own lists share.

A list is a file or a folder of parts, each plain or compressed.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from dataprep.sources.lines import LineRange
from orchestration import Slice
from pipelines.ingest.file_slices import expected_lines, line_slices, lines_of
from pipelines.ingest.index import Entries, PairList


class LineList(PairList):
    """A list of pairs with an entry per line."""

    patterns: ClassVar[Sequence[str]]
    "Names of the parts, where the list is a folder."

    @abstractmethod
    def read_lines(self, path: Path, lines: LineRange) -> Entries:
        """Yield the entries of some lines of one part."""

    def check(self, path: Path) -> None:
        """Check what one part begins with.

        Raises:
            ListError: it does not have the format of the list.
        """

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        return line_slices(Path(self.list), self.patterns, self.slice_lines, self.check)

    def entries(self, slice_: Slice) -> Entries:
        """See :class:`PairList`."""
        return self.read_lines(*lines_of(Path(self.list), slice_))

    def expected_rows(self) -> int | None:
        """See :class:`PairList`."""
        return expected_lines(Path(self.list), self.patterns, self.check)
