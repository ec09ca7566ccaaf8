"""Documents: text corpora → one cleaned document per row.

Out: ``data`` (doc_id, source, text) and ``rejects``. Drops: ``malformed_line``, ``too_short``,
``too_long``, ``other_language``, ``unclosed_markup``.

Files are cut into slices by their bytes and small files are joined. Within a slice, some megabytes
of documents are read, cleaned and written at a time, so a worker's memory depends neither on the
size of a slice nor on that of a file.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field

from dataprep.schemas import DOCUMENTS, REJECTS
from dataprep.sources.documents import Documents, document_tables, in_chunks
from dataprep.sources.lines import ListError
from dataprep.sources.names import safe_name
from orchestration import Context, Output, Slice, Stage
from orchestration.params import EXTERNAL_FILE
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.source import Kind, Source, as_recipe_errors

_SLICE_BYTES: Final = 150_000_000
"Documents of a slice: their objects, their rows and their Parquet."


class Corpus(Source):
    """A corpus of documents."""

    kind: ClassVar[Kind] = "texts"
    file_errors: ClassVar[tuple[type[Exception], ...]] = (ListError,)

    file: Annotated[str, EXTERNAL_FILE]
    "Path of the corpus: a file, or a folder of files."
    slice_bytes: int = Field(default=1 << 26, ge=1)
    "Largest number of bytes of files per slice; larger only for what cannot be cut."
    min_chars: int = Field(default=20, ge=1)
    "Smallest number of characters of a document; shorter documents are rejects."

    @abstractmethod
    def slices(self) -> Iterable[Slice]:
        """Cut the corpus into slices.

        Raises:
            one of ``file_errors``: a file is not of this format.
        """

    @abstractmethod
    def documents(self, slice_: Slice) -> Documents:
        """Yield the documents of one slice."""

    def expected_rows(self) -> int | None:
        """Estimate the number of documents; None if only reading the corpus tells."""
        return None

    def stages(self, name: str, download: DownloadParams | None) -> tuple[Stage, ...]:
        """Return ``documents/<name>``."""
        return (stage(self, name=name),)


def stage(params: Corpus, *, name: str) -> Stage:
    """Declare the stage for the source ``name``."""
    return Stage(
        f"documents/{name}",
        lambda context: run(context, params, name),
        params,
        version=8,
        expects=partial(expects, params),
        workers=workers,
    )


def run(context: Context, params: Corpus, name: str) -> None:
    """Read the corpus, one slice at a time."""
    with as_recipe_errors(params):
        slices = list(params.slices())
    context.map_slices(slices, partial(document_slice, params, name))
    context.commit(slices, schemas={"data": DOCUMENTS, "rejects": REJECTS})


def document_slice(params: Corpus, name: str, slice_: Slice) -> Iterator[Output]:
    """Read the documents of one slice; each output has a bounded size."""
    file, part = Path(params.file).name, slice_.payload.get("part", "")
    documents = params.documents(slice_)
    if part:
        documents = (replace(d, name=f"{safe_name(part)}/{d.name}") for d in documents)
    for chunk in in_chunks(documents):
        rows, rejects = document_tables(chunk, name, file, params.min_chars)
        yield Output(
            num_rows_in=rows.num_rows + rejects.num_rows, tables={"data": rows, "rejects": rejects}
        )


def expects(params: Corpus) -> Expected:
    """Estimate the number of documents.

    Raises:
        RecipeError: the file is not of this format.
    """
    with as_recipe_errors(params):
        rows = params.expected_rows()
    return Expected(rows=rows)


def workers(inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of a worker: the documents of a slice."""
    return Workers(WORKER_BYTES + _SLICE_BYTES)
