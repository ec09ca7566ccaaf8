"""The pairs that a pretraining was trained on, for contrastive tuning (paper, appendix A).

Images are copied as they are stored, so ``prepare`` takes about their bytes once more; it decodes
nothing.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal

import pyarrow as pa

from dataprep.tasks.example import Example
from orchestration.params import EXTERNAL_FILE, OR_URI, OrOutput
from pipelines.finetune.curated_pairs import Part, digest_of_pairs, open_pairs
from pipelines.finetune.formats.format import StoredFormat


class PretrainingPairs(StoredFormat):
    """Curated images with captions, from the workdir of a pretraining."""

    license: ClassVar = "as the sources of the pretraining"
    tasks: ClassVar = frozenset({"retrieval"})

    format: Literal["pretraining_pairs"]
    "The curated pairs of a pretraining."
    workdir: Annotated[str, EXTERNAL_FILE, OR_URI, OrOutput(lambda _: True, digest_of_pairs)]
    "Path or `s3://` URI of the workdir, which keeps its outputs of `curate` and of the images."
    part: Part = "train"
    "The pairs that the pretraining was trained on, or those that it held out."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`; an image has the name of its example."""
        pairs = open_pairs(self.workdir)
        read = pairs.reader(self.part, with_images=False)
        for start in range(0, pairs.num_rows(), self.slice_rows):
            for row in read(start, min(start + self.slice_rows, pairs.num_rows())).to_pylist():
                id_ = row["example_id"]
                yield Example(id_, images=(id_,), texts=tuple(row["texts"]))

    def expected_rows(self) -> int:
        """See :class:`TaskFormat`."""
        return round(open_pairs(self.workdir).num_rows() * self._fraction())

    def expected_bytes(self) -> int:
        """See :class:`TaskFormat`."""
        return round(open_pairs(self.workdir).image_bytes() * self._fraction())

    def num_stored(self) -> int:
        """See :class:`StoredFormat`."""
        return open_pairs(self.workdir).num_rows()

    def reader(self) -> Callable[[int, int], pa.Table]:
        """See :class:`StoredFormat`."""
        return open_pairs(self.workdir).reader(self.part)

    def _fraction(self) -> float:
        held_out = open_pairs(self.workdir).split.fraction
        return held_out if self.part == "held_out" else 1 - held_out
