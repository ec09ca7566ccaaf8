"""Import: a folder of pictures without captions → stored pictures.

Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``. Drops: ``missing_file``,
``damaged_file`` and what ``dataprep.images`` says of a picture: every file of the folder ends as a
picture or as a reject.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dataprep.sources.folders import PictureFolder, files_in
from orchestration import Context, Output, Slice
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.slicing import name_slices
from pipelines.storing import Found, StoreParams, store_found


class Params(StageParams):
    """Own pictures, each in a file."""

    format: Literal["picture_folder"]
    folder: Annotated[str, EXTERNAL_FILE]
    "Path of the folder; pictures may lie in folders within."
    labels: bool = False
    "The first folder within is the label, as in an unpacked ImageNet."
    store: StoreParams = StoreParams()
    slice_files: int = Field(default=2048, ge=1)
    "Files of a slice."


def run(context: Context, params: Params, source: str) -> None:
    """List the folder, then store its pictures, some in each worker."""
    if not (names := files_in(Path(params.folder), "*")):
        raise RecipeError(f"{params.folder}: no files")
    slices = name_slices(names, params.slice_files)
    context.map_slices(slices, partial(import_slice, params, source), row_group_rows=256)
    context.commit(slices)


def import_slice(params: Params, source: str, piece: Slice) -> Output:
    """Store the pictures of one slice."""
    return store_found(_found(params, piece), source, params.store.rules())


def _found(params: Params, piece: Slice) -> Iterator[Found]:
    pictures = PictureFolder(Path(params.folder))
    for name in piece.payload["names"]:
        inner = name.split("/")
        label = inner[0] if params.labels and len(inner) > 1 else ""
        # With its suffix: a.jpg and a.png are two pictures.
        yield Found(name, name, partial(pictures.read, name), label=label)
