"""Images whose captions stand in one annotation file: the program shared by COCO and its like.

Before the slices one worker reads the annotation file and the directories of the zip archives, and
writes ``annotations.parquet`` into the stage's folder: an image per row, with the records of its
members. A slice is a row group of it, so that no other worker reads either as a whole.
"""

import json
import tempfile
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Protocol
from zipfile import BadZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from dataprep.sources.annotations import MALFORMED_ENTRY, AnnotatedImage, AnnotationError
from dataprep.sources.entries import EMPTY_CAPTION
from dataprep.sources.names import safe_name
from dataprep.sources.visual_genome import EVALUATION_IMAGE
from dataprep.sources.zips import Member, ZipDirectory, ZipSet
from orchestration import Context, Slice
from orchestration.params import EXTERNAL_FILE, OR_URI
from orchestration.slices import range_slices
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from pipelines.ingest.import_images import ImageArchive
from pipelines.ingest.published_counts import published_numbers
from pipelines.ingest.source import Kind
from pipelines.ingest.store_images import Found, refuse

_FILE: Final = "annotations.parquet"
_SCHEMA: Final = pa.schema({
    "image": pa.string(),
    "members": pa.list_(pa.struct({"archive": pa.int32(), "record": pa.binary()})),
})  # fmt: skip
"An AnnotatedImage as JSON, and the members of its name."


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
    def read_annotations(self, members: Collection[str]) -> Iterable[AnnotatedImage]:
        """Read the images that the annotation file lists, in its order.

        Args:
            members: names of the members of the zip archives.
        """

    @abstractmethod
    def archives(self) -> Sequence[Path]:
        """Return the paths of the zip archives of images; none if they lie in a folder."""

    def reader(self, members: dict[str, list[Member]]) -> Reader:
        """Return a reader of the images' files, in archives of those ``members``."""
        return ZipSet(self.archives(), members)

    def prepare(self, context: Context) -> None:
        """Write the annotations, unless an earlier attempt has written them."""
        if not context.folder.exists(_FILE):
            context.run_task(write_annotations, self, context.folder)

    def slices(self, folder: Store) -> Iterable[Slice]:
        """See :class:`ImageArchive`."""
        with pq.ParquetFile(folder.open(_FILE)) as file:
            return range_slices(file.metadata.num_rows, self.slice_rows)

    def find(self, slice_: Slice, folder: Store) -> Iterator[Found]:
        """See :class:`ImageArchive`."""
        with pq.ParquetFile(folder.open(_FILE)) as file:
            rows = file.read_row_group(slice_.payload["start"] // self.slice_rows).to_pylist()
        images = [AnnotatedImage(**json.loads(row["image"])) for row in rows]
        members = {
            image.member: [Member(**member) for member in row["members"]]
            for image, row in zip(images, rows, strict=True)
        }
        reader = self.reader(members)
        for image in images:
            if image.problem:
                read = partial(refuse, MALFORMED_ENTRY, image.problem)
            elif image.excluded:
                read = partial(refuse, EVALUATION_IMAGE, image.excluded)
            elif not image.captions:
                read = partial(refuse, EMPTY_CAPTION, "no caption")
            else:
                read = partial(reader.read, image.member)
            yield Found(image.name, safe_name(image.member), read, image.captions)

    def numbers(self, stage: str, slices: Sequence[Slice]) -> dict[str, float]:
        """See :class:`ImageArchive`."""
        rows = sum(slice_.num_rows or 0 for slice_ in slices)
        return published_numbers(stage, self.format, rows=rows, file=self.annotations)

    def clean(self, folder: Store) -> None:
        """Remove the annotations."""
        folder.remove(_FILE)


def write_annotations(source: AnnotatedImages, folder: Store) -> None:
    """Write the images of a source into a folder, a row group for each slice.

    Raises:
        one of ``file_errors``: a file is not of its format.
    """
    local = with_local_files(source, folder)
    members = ZipDirectory(local.archives()).members
    images = iter(local.read_annotations(members.keys()))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / _FILE
        with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
            while some := list(islice(images, source.slice_rows)):
                rows = [_row(image, members.get(image.member, [])) for image in some]
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA), len(rows))
        folder.write_file(_FILE, path)


def _row(image: AnnotatedImage, members: Sequence[Member]) -> dict[str, Any]:
    return {"image": json.dumps(asdict(image)), "members": [vars(member) for member in members]}
