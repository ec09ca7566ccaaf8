"""ImageNet-21K: a tar of one tar per synset, plain or gzipped, read without unpacking it.

A gzipped archive is read once from end to end before its slices. Segment by segment, this pass
writes an index of the compressed stream and the synsets into ``segments/`` of the stage's folder. A
resumed stage goes on behind the last segment, and a slice reads the indexes of its synset alone.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from dataprep.sources import imagenet21k
from dataprep.sources.gzip_pass import Position
from dataprep.sources.imagenet21k import ArchiveError, Segment, Synset
from dataprep.sources.seekable_gzip import is_gzip
from orchestration import Context, Slice
from orchestration.params import EXTERNAL_FILE
from orchestration.reporting.progress import write_heartbeat
from orchestration.storage.store import Store
from pipelines.ingest.import_images import ImageArchive
from pipelines.ingest.published_counts import published_numbers
from pipelines.ingest.source import Kind
from pipelines.ingest.store_images import Found, refuse

_SEGMENTS: Final = "segments"
_GB: Final = 10**9


class ImageNet21k(ImageArchive):
    """ImageNet-21K: images labeled with their WordNet id; a synset is a slice."""

    license: ClassVar = "research and education, not commerce, by ImageNet's terms of access"
    kind: ClassVar[Kind] = "images"
    file_errors: ClassVar = (ArchiveError,)

    format: Literal["imagenet21k"]
    "A tar of one tar per synset, plain or gzipped."
    archive: Annotated[str, EXTERNAL_FILE]
    "Path of the archive."

    @property
    def is_gzipped(self) -> bool:
        """Whether the archive needs a pass before its slices."""
        return is_gzip(Path(self.archive))

    def prepare(self, context: Context) -> None:
        """Write the segments of a gzipped archive that no earlier attempt has written."""
        if self.is_gzipped and not is_complete(listed(context.folder)):
            with context.progress.following_heartbeat():
                context.run_task(write_segments, Path(self.archive), context.folder)

    def slices(self, folder: Store) -> Iterator[Slice]:
        """See :class:`ImageArchive`; a payload also says which segments hold the synset."""
        path = Path(self.archive)
        if not self.is_gzipped:
            for i, synset in enumerate(imagenet21k.synsets(path)):
                yield Slice(f"{i:06d}", vars(synset))
            return
        segments = listed(folder)
        starts = [segment.start for segment in segments]
        tars = [tar for segment in segments for tar in segment.tars]
        for i, synset in enumerate(imagenet21k.distinct_synsets(tars, path)):
            first = bisect_right(starts, synset.offset) - 1
            stop = bisect_left(starts, synset.offset + synset.num_bytes, first + 1)
            yield Slice(f"{i:06d}", {**vars(synset), "segments": [first, stop]})

    def find(self, slice_: Slice, folder: Store) -> Iterator[Found]:
        """See :class:`ImageArchive`; the WordNet id is the label."""
        payload = dict(slice_.payload)
        segments = range(*payload.pop("segments", (0, 0)))
        synset = Synset(**payload)
        with ExitStack() as stack:
            indexes = [stack.enter_context(folder.open(_index(number))) for number in segments]
            for image in imagenet21k.read_synset(Path(self.archive), synset, indexes):
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
        """Remove the segments."""
        if self.is_gzipped:
            folder.remove(_SEGMENTS)


def write_segments(path: Path, folder: Store) -> None:
    """Read a gzipped archive once, and write its segments into a folder as the pass goes on.

    Segments that the folder has are not read again.

    Raises:
        ArchiveError: the file is not a gzipped tar, is damaged or truncated.
    """
    found = listed(folder)
    last = replace(found[-1], index=folder.read(_index(len(found) - 1))) if found else None
    total = -(-path.stat().st_size // _GB)

    def commit(segment: Segment) -> None:
        number = segment.position.num_segments - 1
        folder.write_bytes(_index(number), segment.index)
        record = asdict(segment)
        del record["index"]
        folder.write_bytes(f"{_SEGMENTS}/{number:06d}.json", json.dumps(record).encode())
        done = segment.position.compressed_bytes // _GB
        write_heartbeat(folder, done, total, "GB", "listing the archive")

    imagenet21k.index_gzipped(path, commit, last)


def listed(folder: Store) -> list[Segment]:
    """Return the segments that a folder has, without their indexes."""
    segments: list[Segment] = []
    for name in folder.names(_SEGMENTS, ".json"):
        record = json.loads(folder.read(f"{_SEGMENTS}/{name}"))
        position = Position(**record["position"])
        tars = [(path, offset, num_bytes) for path, offset, num_bytes in record["tars"]]
        segments.append(Segment(position, record["start"], record["members_end"], tars))
    return segments


def is_complete(segments: Sequence[Segment]) -> bool:
    """Return whether the last segment ends the archive."""
    return bool(segments) and segments[-1].position.is_end


def _index(number: int) -> str:
    return f"{_SEGMENTS}/{number:06d}.gzidx"
