"""Import: an ImageNet-21K archive → stored images, without unpacking it.

Out: ``data`` (see ``dataprep.schemas.IMAGES``; the wnid is the label) and ``rejects``.
Drops: ``damaged_tar`` and what ``dataprep.images`` says of an image. A slice is one synset.

A gzipped archive is read once from end to end before its slices: ``listing/`` in the stage's folder
then holds an index and the synsets, and a stage that is resumed goes on from there.
"""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from dataprep.sources.imagenet21k import (
    DAMAGED_SYNSET,
    ArchiveError,
    Synset,
    index_gzipped,
    read_synset,
    synsets,
)
from dataprep.sources.seekable_gzip import is_gzip
from orchestration import Context, Output, Slice
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.storage.store import Store
from pipelines.ingest.published_counts import published_numbers
from pipelines.ingest.store_images import Found, StoreParams, refuse, store_found

_LISTING: Final = "listing"
_SYNSETS: Final = f"{_LISTING}/synsets.json"
"Written after the index: where it is, both are whole."
_INDEX: Final = f"{_LISTING}/archive.gzidx"


class Params(StageParams):
    """An archive of labeled images."""

    format: Literal["imagenet21k"]
    "A tar of one tar per synset, plain or gzipped."
    archive: Annotated[str, EXTERNAL_FILE]
    "Path of the archive."
    store: StoreParams = StoreParams()


def run(context: Context, params: Params, source: str) -> None:
    """List the archive's synsets, then store each in some worker."""
    path = Path(params.archive)
    index = context.folder if is_gzip(path) else None
    try:
        if index is None:
            found = list(synsets(path))
        else:
            if not index.exists(_SYNSETS):
                context.run_task(list_gzipped, path, index)
            found = [Synset(**synset) for synset in json.loads(index.read(_SYNSETS))]
    except ArchiveError as error:
        raise RecipeError(str(error)) from None
    slices = [Slice(synset.wnid, vars(synset)) for synset in found]
    process = partial(import_slice, params, source, index)
    context.map_slices(slices, process, row_group_rows=256)
    numbers = published_numbers(context.stage.name, params.format, synsets=len(slices))
    context.commit(slices, numbers=numbers)
    if index is not None:
        index.remove(_LISTING)


def list_gzipped(path: Path, folder: Store) -> None:
    """Read a gzipped archive once and write its index and its synsets into a folder.

    Raises:
        ArchiveError: the file is no gzipped tar, or is cut off.
    """
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "archive.gzidx"
        found = index_gzipped(path, index)
        folder.write_file(_INDEX, index)
    folder.write_bytes(_SYNSETS, json.dumps([vars(synset) for synset in found]).encode())


def import_slice(params: Params, source: str, index: Store | None, piece: Slice) -> Output:
    """Store the images of one synset; ``index`` is the folder of a gzipped archive's."""
    found = _of_synset(Path(params.archive), Synset(**piece.payload), index)
    return store_found(found, source, params.store.rules())


def _of_synset(archive: Path, synset: Synset, folder: Store | None) -> Iterator[Found]:
    index = folder.open(_INDEX) if folder else None
    for image in read_synset(archive, synset, index):
        where = f"{synset.wnid}.tar/{image.name}"
        read = (
            partial(refuse, DAMAGED_SYNSET, image.problem)
            if image.problem
            else partial(bytes, image.data)
        )
        yield Found(image.name, where, read, label=synset.wnid)
