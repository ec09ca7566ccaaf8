"""Index: a list of image URLs with captions → one row per usable entry.

Out: ``data`` (sample_id, source, url, captions, sha256) and ``rejects``.
Drops: ``malformed_line``, ``empty_caption``, ``bad_url``.
Nothing is fetched here, and no host name is resolved. A list whose number of rows differs from the
published one is reported in the log and in the data report.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Final

import pyarrow as pa
from pydantic import Field

from dataprep.schemas import INDEX, REJECTS
from dataprep.sources.entries import BadEntry, Entry, index_tables
from dataprep.sources.lines import ListError
from orchestration import Context, Output, Slice, Stage
from orchestration.params import EXTERNAL_FILE, OR_URI, is_uri
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.download import stage as download_stage
from pipelines.ingest.published_counts import published_numbers
from pipelines.ingest.source import Kind, Source, as_recipe_errors

Entries = Iterator[Entry | BadEntry]
_ROW_BYTES: Final = 1500
"Memory of a line of a list: its objects, its row and its Parquet."


class PairList(Source):
    """A list of image URLs with captions: it is indexed, then downloaded."""

    kind: ClassVar[Kind] = "pairs"
    file_errors: ClassVar = (ListError,)
    local_images: ClassVar[bool] = False
    "Whether the list may name local files, if it is itself given by path."

    list: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path of the list file or of a folder of its parts, or the URI of a file (http, s3, hf)."
    slice_lines: int = Field(default=50_000, ge=1)
    "Number of lines or rows of the list per slice."

    @abstractmethod
    def slices(self) -> Iterable[Slice]:
        """Cut the list into slices.

        Raises:
            one of ``file_errors``: the file is not of this format.
        """

    @abstractmethod
    def entries(self, slice_: Slice) -> Entries:
        """Yield the entries of one slice."""

    def expected_rows(self) -> int | None:
        """Estimate the rows of the list, which is local; None if only reading it tells.

        Raises:
            one of ``file_errors``: a file is not of this format.
        """
        return None

    def prepare(self, context: Context) -> dict[str, float]:
        """Write what the slices need into the stage's folder; return numbers for the manifest."""
        return {}

    def read(
        self, slice_: Slice, name: str, folder: Store, *, local_images: bool = False
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yield the index rows and the rejects of one slice, for ``slice_lines`` entries at a time.

        Args:
            slice_: the slice.
            name: of the source in the recipe.
            folder: the stage's, with what :meth:`prepare` wrote.
            local_images: whether entries may name local files.
        """
        part, file = slice_.payload.get("part", ""), Path(self.list).name
        entries = iter(self.entries(slice_))
        for number in itertools.count():
            some = list(itertools.islice(entries, self.slice_lines))
            if number and not some:
                return
            yield index_tables(
                some,
                name,
                f"{file}/{part}" if part else file,
                part=part,
                local_images=local_images,
            )

    @property
    def names_local_images(self) -> bool:
        """Whether the list may name local files."""
        return self.local_images and not is_uri(self.list)

    def stages(self, name: str, download: DownloadParams | None) -> tuple[Stage, ...]:
        """Return ``index/<name>`` and ``download/<name>``."""
        download = download or DownloadParams()
        index = stage(self, name=name)
        if self.names_local_images:
            location = Path(self.list)
            folder = location if location.is_dir() else location.parent
            download = download.model_copy(update={"images_folder": str(folder)})
        return index, download_stage(download, name=name, index=index)


def stage(params: PairList, *, name: str) -> Stage:
    """Declare the stage for the source ``name``."""
    return Stage(
        f"index/{name}",
        lambda context: run(context, params, name),
        params,
        version=7,
        expects=partial(expects, params),
        workers=partial(workers, params),
    )


def run(context: Context, params: PairList, name: str) -> None:
    """Read the list, one slice of entries at a time."""
    local = context.local_files(params)
    with as_recipe_errors(local):
        slices = list(local.slices())
    numbers = local.prepare(context)
    context.map_slices(slices, partial(index_slice, params, name, context.folder))
    rows = sum(slice_.num_rows or 0 for slice_ in slices)
    numbers |= published_numbers(context.stage.name, params.format, rows=rows, file=local.list)
    context.commit(slices, numbers=numbers, schemas={"data": INDEX, "rejects": REJECTS})


def index_slice(params: PairList, name: str, folder: Store, slice_: Slice) -> Iterator[Output]:
    """Read the entries of one slice; ``folder`` is the stage's."""
    local = with_local_files(params, folder)
    tables = local.read(slice_, name, folder, local_images=params.names_local_images)
    for rows, rejects in tables:
        yield Output(rows.num_rows + rejects.num_rows, {"data": rows, "rejects": rejects})


def expects(params: PairList) -> Expected:
    """Estimate the rows of a local list; the rows of a list behind a URI are unknown.

    Raises:
        RecipeError: the file is not of this format.
    """
    if not Path(params.list).exists():
        return Expected()
    with as_recipe_errors(params):
        rows = params.expected_rows()
    return Expected(rows=rows)


def workers(params: PairList, inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of a worker: the lines of a slice."""
    return Workers(WORKER_BYTES + params.slice_lines * _ROW_BYTES)
