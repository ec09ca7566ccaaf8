"""ImageNet-21K: a tar of one tar per synset, plain or gzipped, read without unpacking it.

A gzipped archive is read once from end to end before its slices: ``listing/`` in the stage's folder
then holds an index of the compressed stream and the synsets, so that a resumed stage skips this.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from dataprep.sources import imagenet21k
from dataprep.sources.imagenet21k import ArchiveError, Synset
from dataprep.sources.seekable_gzip import is_gzip
from orchestration import Context, Slice
from orchestration.params import EXTERNAL_FILE
from orchestration.storage.store import Store
from pipelines.ingest.import_images import ImageArchive
from pipelines.ingest.published_counts import published_numbers
from pipelines.ingest.source import Kind
from pipelines.ingest.store_images import Found, refuse

_LISTING: Final = "listing"
_SYNSETS: Final = f"{_LISTING}/synsets.json"
"Written after the index: where it exists, both are complete."
_INDEX: Final = f"{_LISTING}/archive.gzidx"


class ImageNet21k(ImageArchive):
    """ImageNet-21K: images labeled with their WordNet id; a synset is a slice."""

    kind: ClassVar[Kind] = "images"
    file_errors: ClassVar = (ArchiveError,)

    format: Literal["imagenet21k"]
    "A tar of one tar per synset, plain or gzipped."
    archive: Annotated[str, EXTERNAL_FILE]
    "Path of the archive."

    @property
    def is_gzipped(self) -> bool:
        """Whether the archive needs a listing."""
        return is_gzip(Path(self.archive))

    def prepare(self, context: Context) -> None:
        """Write the listing of a gzipped archive, unless an earlier attempt has written it."""
        if self.is_gzipped and not context.folder.exists(_SYNSETS):
            context.run_task(write_listing, Path(self.archive), context.folder)

    def slices(self, folder: Store) -> Iterator[Slice]:
        """See :class:`ImageArchive`."""
        synsets = (
            (Synset(**synset) for synset in json.loads(folder.read(_SYNSETS)))
            if self.is_gzipped
            else imagenet21k.synsets(Path(self.archive))
        )
        for i, synset in enumerate(synsets):
            yield Slice(f"{i:06d}", vars(synset))

    def find(self, slice_: Slice, folder: Store) -> Iterator[Found]:
        """See :class:`ImageArchive`; the WordNet id is the label."""
        synset = Synset(**slice_.payload)
        index = folder.open(_INDEX) if self.is_gzipped else None
        for image in imagenet21k.read_synset(Path(self.archive), synset, index):
            location = f"{synset.wnid}.tar/{image.name}"
            read = (
                partial(refuse, image.reason, image.problem)
                if image.problem
                else partial(bytes, image.data)
            )
            yield Found(image.name, location, read, label=synset.wnid)

    def numbers(self, stage: str, slices: Sequence[Slice]) -> dict[str, float]:
        """See :class:`ImageArchive`; a slice is a synset."""
        published = published_numbers(stage, self.format, synsets=len(slices))
        return {"num_synsets": len(slices), **published}

    def clean(self, folder: Store) -> None:
        """Remove the listing."""
        if self.is_gzipped:
            folder.remove(_LISTING)


def write_listing(path: Path, folder: Store) -> None:
    """Read a gzipped archive once, and write its index and its synsets into a folder.

    Raises:
        ArchiveError: the file is not a gzipped tar, or is cut off.
    """
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "archive.gzidx"
        synsets = imagenet21k.index_gzipped(path, index)
        folder.write_file(_INDEX, index)
    folder.write_bytes(_SYNSETS, json.dumps([vars(synset) for synset in synsets]).encode())
