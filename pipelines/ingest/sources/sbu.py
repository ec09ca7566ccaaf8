"""SBU Captions, in the two forms in which it is distributed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.sources import sbu
from dataprep.sources.lines import LineRange, about_lines
from orchestration import Slice
from orchestration.params import EXTERNAL_FILE, OR_URI
from orchestration.slices import range_slices
from pipelines.ingest.index import Entries, PairList


class SbuLines(PairList):
    """SBU Captions as two text files."""

    license: ClassVar = "none stated; each image under its license on Flickr"

    format: Literal["sbu"]
    "Two text files: line N of one is the URL, line N of the other the caption."
    captions: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the file of captions; `list` is the file of URLs."

    def slices(self) -> Iterator[Slice]:
        """See :class:`PairList`."""
        self._check_files()
        ranges = sbu.paired_ranges(Path(self.list), Path(self.captions), self.slice_lines)
        for i, (urls, captions) in enumerate(ranges):
            payload = {"urls": vars(urls), "captions": vars(captions)}
            yield Slice(f"{i:06d}", payload, urls.num_lines)

    def entries(self, slice_: Slice) -> Entries:
        """See :class:`PairList`."""
        ranges = LineRange(**slice_.payload["urls"]), LineRange(**slice_.payload["captions"])
        return sbu.read_lines_form(Path(self.list), Path(self.captions), ranges)

    def expected_rows(self) -> int:
        """See :class:`PairList`."""
        self._check_files()
        return about_lines(Path(self.list))

    def _check_files(self) -> None:
        for path in (self.list, self.captions):
            if Path(path).is_dir():
                raise sbu.SbuError(f"{path}: a folder; SBU's two lists must be one file each")


class SbuJson(PairList):
    """SBU Captions as one JSON file."""

    license: ClassVar = "none stated; each image under its license on Flickr"

    format: Literal["sbu_json"]
    "One JSON object with a list of URLs and a list of captions."

    def slices(self) -> Iterable[Slice]:
        """See :class:`PairList`."""
        if Path(self.list).is_dir():
            raise sbu.SbuError(f"{self.list}: a folder; name SBU's JSON file")
        return range_slices(len(sbu.json_lists(Path(self.list))[0]), self.slice_lines)

    def entries(self, slice_: Slice) -> Entries:
        """See :class:`PairList`."""
        return sbu.read_json_form(Path(self.list), **slice_.payload)
