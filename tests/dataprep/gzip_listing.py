"""The listing of a gzipped archive, held in memory."""

import io
from pathlib import Path

from dataprep.sources.imagenet21k import (
    Image,
    Segment,
    Synset,
    distinct_synsets,
    index_gzipped,
    read_synset,
)


class Listing:
    """The segments of an archive, read by one pass or by the rest of an interrupted one."""

    def __init__(self, path: Path, begun: list[Segment] | None = None) -> None:
        self.path, self.segments = path, list(begun or [])
        index_gzipped(path, self.segments.append, self.segments[-1] if begun else None)

    def synsets(self) -> list[Synset]:
        return distinct_synsets([tar for s in self.segments for tar in s.tars], self.path)

    def indexes(self, synset: Synset) -> list[io.BytesIO]:
        stop = synset.offset + max(synset.num_bytes, 1)
        found = [s for s in self.segments if s.start < stop and s.position.offset > synset.offset]
        return [io.BytesIO(segment.index) for segment in found or self.segments[-1:]]

    def read(self, synset: Synset) -> list[Image]:
        return list(read_synset(self.path, synset, self.indexes(synset)))
