"""CC-News: the WARC files of Common Crawl's news crawl."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from dataprep.sources import cc_news
from dataprep.sources.documents import Documents
from dataprep.sources.folders import files_in
from orchestration import Slice
from pipelines.ingest.documents import Corpus
from pipelines.ingest.file_slices import file_slices


class CcNews(Corpus):
    """CC-News; a WARC file has a gigabyte and is a slice."""

    license: ClassVar = "Common Crawl's terms of use; each article under its publisher's terms"

    format: Literal["cc_news"]
    "A folder of WARC files."
    language: str = Field(default="en", pattern=r"^[a-z]{2}$")
    "ISO 639-1 code of the language to keep; pages in other languages are rejects."

    def slices(self) -> Iterable[Slice]:
        """See :class:`Corpus`."""
        return file_slices(Path(self.file), cc_news.PATTERN, num_bytes=self.slice_bytes)

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        for name in slice_.payload["names"]:
            yield from cc_news.read_warc(Path(self.file), name, self.language)

    def expected_rows(self) -> None:
        """See :class:`Corpus`; checks that there are files."""
        files_in(Path(self.file), cc_news.PATTERN)
