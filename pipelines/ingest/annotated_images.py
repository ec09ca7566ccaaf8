"""Images whose captions stand in one annotation file: the program shared by COCO and its like."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, ClassVar, Final, Protocol
from zipfile import BadZipFile

from pydantic import Field

from dataprep.sources.annotations import (
    MALFORMED_ENTRY,
    AnnotatedImage,
    AnnotationError,
    json_bytes,
)
from dataprep.sources.entries import EMPTY_CAPTION
from dataprep.sources.names import safe_name
from dataprep.sources.visual_genome import EVALUATION_IMAGE
from dataprep.sources.zips import ZipSet
from orchestration import Slice
from orchestration.params import EXTERNAL_FILE, OR_URI
from orchestration.slices import range_slices
from orchestration.storage.store import Store
from pipelines.ingest.import_images import ImageArchive
from pipelines.ingest.published_counts import published_numbers
from pipelines.ingest.source import Kind
from pipelines.ingest.store_images import Found, refuse

_OBJECTS_PER_BYTE: Final = 7
"Bytes of Python objects for a byte of JSON, while it is read."


class Reader(Protocol):
    """Reads images by the names that annotations give them."""

    def read(self, name: str) -> bytes:
        """Return the bytes of one image, or raise MemberError."""


class AnnotatedImages(ImageArchive):
    """Images with captions, listed in one annotation file."""

    kind: ClassVar[Kind] = "pairs"
    file_errors: ClassVar = (AnnotationError, BadZipFile)

    annotations: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the annotation file."
    slice_rows: int = Field(default=2048, ge=1)
    "Number of images per slice."

    @abstractmethod
    def read_annotations(self) -> Sequence[AnnotatedImage]:
        """Return the images that the annotation file lists, in its order."""

    @abstractmethod
    def reader(self) -> Reader:
        """Return a reader of the images' files."""

    def slices(self, folder: Store) -> Iterable[Slice]:
        """See :class:`ImageArchive`."""
        return range_slices(len(annotations_of(self)), self.slice_rows)

    def find(self, slice_: Slice, folder: Store) -> Iterator[Found]:
        """See :class:`ImageArchive`."""
        reader = self.reader()
        for image in annotations_of(self)[slice_.payload["start"] : slice_.payload["stop"]]:
            if image.problem:
                read = partial(refuse, MALFORMED_ENTRY, image.problem)
            elif image.excluded:
                read = partial(refuse, EVALUATION_IMAGE, image.excluded)
            elif not image.captions:
                read = partial(refuse, EMPTY_CAPTION, "no caption")
            else:
                read = partial(reader.read, image.member)
            yield Found(image.name, safe_name(image.member), read, image.captions)

    def listing_bytes(self) -> int:
        """See :class:`ImageArchive`."""
        return _OBJECTS_PER_BYTE * json_bytes(Path(self.annotations))

    def numbers(self, stage: str, slices: Sequence[Slice]) -> dict[str, float]:
        """See :class:`ImageArchive`."""
        rows = sum(slice_.num_rows or 0 for slice_ in slices)
        return published_numbers(stage, self.format, rows=rows, file=self.annotations)


@lru_cache(maxsize=2)
def annotations_of(source: AnnotatedImages) -> Sequence[AnnotatedImage]:
    """Read the annotations once per worker."""
    return source.read_annotations()


@lru_cache(maxsize=2)
def zips_of(*paths: str) -> ZipSet:
    """Open zip archives once per worker."""
    return ZipSet([Path(path) for path in paths])
