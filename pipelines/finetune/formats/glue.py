"""The TSV files of GLUE."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.tasks.example import Example
from dataprep.tasks.glue import Corpus, check_glue, read_glue
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.finetune.formats.format import TaskFormat
from pipelines.ingest.file_slices import expected_lines


class Glue(TaskFormat):
    """One file of a corpus of GLUE."""

    license: ClassVar = "each corpus under its own license, see gluebenchmark.com"
    tasks: ClassVar = frozenset({"text_classification"})

    format: Literal["glue"]
    "A TSV file of GLUE, as its authors publish it."
    corpus: Corpus
    "Name of the corpus, which says which columns are read."
    file: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the file, such as `train.tsv` or `dev_matched.tsv`."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_glue(Path(self.file), self.corpus)

    @property
    def has_numbers(self) -> bool:
        """See :class:`TaskFormat`."""
        return self.corpus == "stsb"

    def expected_rows(self) -> int:
        """See :class:`TaskFormat`."""
        return expected_lines(Path(self.file), (), partial(check_glue, corpus=self.corpus))
