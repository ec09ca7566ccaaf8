"""SBU Captions, in the two forms in which it is distributed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.sources import sbu
from dataprep.sources.lines import LineRange
from orchestration import Slice
from orchestration.params import EXTERNAL_FILE, OR_URI
from orchestration.slices import range_slices
from pipelines.ingest.index import Entries, PairList


class SbuLines(PairList):
    """SBU Captions as two text files."""

    file_errors: ClassVar = (sbu.SbuError,)

    format: Literal["sbu"]
    "Two text files: line N of one is the URL, line N of the other the caption."
    captions: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the file of captions; `list` is the file of URLs."

    def slices(self) -> Iterator[Slice]:
        """See :class:`PairList`."""
        ranges = sbu.paired_ranges(Path(self.list), Path(self.captions), self.slice_lines)
        for i, (urls, captions) in enumerate(ranges):
            payload = {"urls": vars(urls), "captions": vars(captions)}
            yield Slice(f"{i:06d}", payload, urls.num_lines)

    def entries(self, piece: Slice) -> Entries:
        """See :class:`PairList`."""
        ranges = LineRange(**piece.payload["urls"]), LineRange(**piece.payload["captions"])
        return sbu.read_lines_form(Path(self.list), Path(self.captions), ranges)


class SbuJson(PairList):
    """SBU Captions as one JSON file."""

    file_errors: ClassVar = (sbu.SbuError,)

    format: Literal["sbu_json"]
    "One JSON object with a list of URLs and a list of captions."

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        return range_slices(len(sbu.json_lists(Path(self.list))[0]), self.slice_lines)

    def entries(self, piece: Slice) -> Entries:
        """See :class:`PairList`."""
        return sbu.read_json_form(Path(self.list), **piece.payload)

    def expected_rows(self) -> None:
        """Return None: the file is one line."""
        return None
