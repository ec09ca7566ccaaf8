"""NLVR2: sentences that are true or false of two images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.tasks.example import Example
from dataprep.tasks.nlvr2 import check_nlvr2, read_nlvr2
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.finetune.formats.format import PublishedImageFormat
from pipelines.ingest.file_slices import expected_lines


class Nlvr2(PublishedImageFormat):
    """One of NLVR2's splits."""

    license: ClassVar = "annotations CC BY 4.0; each image under its owner's terms"
    tasks: ClassVar = frozenset({"nlvr2"})

    format: Literal["nlvr2"]
    "NLVR2's JSON lines, and its images."
    file: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of `train.json`, `dev.json` or `test1.json`."
    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder or zip archive of the split's images, or of the folder above all splits'."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_nlvr2(Path(self.file))

    def expected_rows(self) -> int:
        """See :class:`TaskFormat`."""
        return expected_lines(Path(self.file), (), check_nlvr2)

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(self.images)]
