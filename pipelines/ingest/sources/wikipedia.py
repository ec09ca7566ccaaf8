"""Wikipedia: a multistream dump, ``*-pages-articles-multistream.xml.bz2``, and its index."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dataprep.sources import wikipedia
from dataprep.sources.documents import Documents
from dataprep.sources.lines import ListError
from orchestration import Slice
from orchestration.params import EXTERNAL_FILE
from pipelines.ingest.documents import Corpus


class Wikipedia(Corpus):
    """Wikipedia, from a multistream dump."""

    license: ClassVar = "CC BY-SA 4.0"
    file_errors: ClassVar = (ListError, wikipedia.DumpError)

    format: Literal["wikipedia"]
    "A multistream dump, bz2-compressed XML."
    index: Annotated[str, EXTERNAL_FILE]
    "Path of the dump's multistream index."
    slice_streams: int = Field(default=20, ge=1)
    "Largest number of the dump's streams per slice; a stream usually holds a hundred pages."

    def slices(self) -> Iterator[Slice]:
        """See :class:`Corpus`."""
        ranges = wikipedia.stream_ranges(
            Path(self.file), Path(self.index), self.slice_streams, self.slice_bytes
        )
        for i, stream_range in enumerate(ranges):
            yield Slice(f"{i:06d}", vars(stream_range))

    def documents(self, slice_: Slice) -> Documents:
        """See :class:`Corpus`."""
        return wikipedia.read_streams(Path(self.file), wikipedia.StreamRange(**slice_.payload))
