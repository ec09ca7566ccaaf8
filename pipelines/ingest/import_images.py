"""Import: images that lie in archives or folders → stored images, without unpacking anything.

Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``: every image of an archive ends in
exactly one of the two. Drops: ``missing_file``, ``damaged_file``, ``linked_file``,
``damaged_tar``, ``malformed_entry``, ``empty_caption``, ``several_pairs_of_one_key``,
``evaluation_image``, and what ``dataprep.images`` finds in an image.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from dataprep.schemas import IMAGES, REJECTS
from orchestration import Context, Output, Slice, Stage
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.source import Source, as_recipe_errors
from pipelines.ingest.store_images import Found, StoreParams, slice_bytes, store_found
from pipelines.readers.expected_memory import DECODING_BYTES

_ROW_GROUP_ROWS: Final = 256
_SLICE_IMAGES: Final = 2048
"Images of a large slice."


class ImageArchive(Source):
    """Images in archives or in a folder, with captions or with labels: they are imported."""

    store: StoreParams = StoreParams()
    "How images are resized and encoded."

    def prepare(self, context: Context) -> None:
        """Write what :meth:`slices` and :meth:`find` need into the stage's folder, in some worker.

        Files that are given by URI are not local copies here.

        Raises:
            one of ``file_errors``: a file is not of this format.
        """

    @abstractmethod
    def slices(self, folder: Store) -> Iterable[Slice]:
        """Cut the archive into slices; ``folder`` is the stage's.

        Raises:
            one of ``file_errors``: a file is not of this format.
        """

    @abstractmethod
    def find(self, slice_: Slice, folder: Store) -> Iterator[Found]:
        """Yield the images of one slice; ``folder`` is the stage's."""

    def expected_rows(self) -> int | None:
        """Estimate the number of images; None if only reading the archive tells.

        Raises:
            one of ``file_errors``: a file is not of this format.
        """
        return None

    def numbers(self, stage: str, slices: Sequence[Slice]) -> dict[str, float]:
        """Return numbers for the manifest, such as the published rows."""
        return {}

    def clean(self, folder: Store) -> None:
        """Remove what :meth:`prepare` wrote, once the stage is committed."""

    def stages(self, name: str, download: DownloadParams | None) -> tuple[Stage, ...]:
        """Return ``import/<name>``."""
        return (stage(self, name=name),)


def stage(params: ImageArchive, *, name: str) -> Stage:
    """Declare the stage for the source ``name``."""
    return Stage(
        f"import/{name}",
        lambda context: run(context, params, name),
        params,
        version=6,
        expects=partial(expects, params),
        workers=workers,
    )


def run(context: Context, params: ImageArchive, name: str) -> None:
    """Cut the archive into slices, then store the images of each in some worker."""
    local = context.local_files(params)
    with as_recipe_errors(local):
        params.prepare(context)
        slices = list(local.slices(context.folder))
    process = partial(import_slice, params, name, context.folder)
    context.map_slices(slices, process, row_group_rows=_ROW_GROUP_ROWS)
    numbers = local.numbers(context.stage.name, slices)
    context.commit(slices, numbers=numbers, schemas={"data": IMAGES, "rejects": REJECTS})
    local.clean(context.folder)


def import_slice(params: ImageArchive, name: str, folder: Store, slice_: Slice) -> Iterator[Output]:
    """Store the images of one slice; ``folder`` is the stage's."""
    local = with_local_files(params, folder)
    return store_found(local.find(slice_, folder), name, local.store.rules(), _ROW_GROUP_ROWS)


def expects(params: ImageArchive) -> Expected:
    """Estimate the number of images.

    Raises:
        RecipeError: a file is not of this format.
    """
    with as_recipe_errors(params):
        return Expected(rows=params.expected_rows())


def workers(inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of a worker: the images of a piece of a slice, and a decode."""
    return Workers(WORKER_BYTES + slice_bytes(_SLICE_IMAGES) + DECODING_BYTES)
