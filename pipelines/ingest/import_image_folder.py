"""Import: a folder of images without captions → stored images.

Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``. Drops: ``missing_file``,
``damaged_file`` and what ``dataprep.images`` says of an image: every file of the folder ends as a
image or as a reject.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dataprep.sources.folders import ImageFolder, files_in
from orchestration import Context, Output, Slice
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.slices import name_slices
from pipelines.ingest.store_images import Found, StoreParams, store_found


class Params(StageParams):
    """Own images, each in a file."""

    format: Literal["image_folder"]
    folder: Annotated[str, EXTERNAL_FILE]
    "Path of the folder; images may lie in folders within."
    labels: bool = False
    "The first folder within is the label, as in an unpacked ImageNet."
    store: StoreParams = StoreParams()
    slice_files: int = Field(default=2048, ge=1)
    "Files of a slice."


def run(context: Context, params: Params, source: str) -> None:
    """List the folder, then store its images, some in each worker."""
    if not (names := files_in(Path(params.folder), "*")):
        raise RecipeError(f"{params.folder}: no files")
    slices = name_slices(names, params.slice_files)
    context.map_slices(slices, partial(import_slice, params, source), row_group_rows=256)
    context.commit(slices)


def import_slice(params: Params, source: str, piece: Slice) -> Output:
    """Store the images of one slice."""
    return store_found(_found(params, piece), source, params.store.rules())


def _found(params: Params, piece: Slice) -> Iterator[Found]:
    images = ImageFolder(Path(params.folder))
    for name in piece.payload["names"]:
        inner = name.split("/")
        label = inner[0] if params.labels and len(inner) > 1 else ""
        # With its suffix: a.jpg and a.png are two images.
        yield Found(name, name, partial(images.read, name), label=label)
