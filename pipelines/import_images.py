"""Import: an ImageNet-21K archive → stored pictures, without unpacking it.

Out: ``data`` (see ``dataprep.schemas.IMAGES``; the wnid is the label) and ``rejects``.
Drops: what ``dataprep.images`` says of a picture. A slice is one synset.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from dataprep.sources.imagenet21k import Synset, read_synset, synsets
from orchestration import Context, Output, Slice
from orchestration.params import EXTERNAL_FILE, StageParams
from pipelines.comparing import published_numbers
from pipelines.storing import Found, StoreParams, store_found


class Params(StageParams):
    """An archive of labelled pictures."""

    format: Literal["imagenet21k"]
    "A tar of one tar per synset."
    archive: Annotated[str, EXTERNAL_FILE]
    "Path of the archive."
    store: StoreParams = StoreParams()


def run(context: Context, params: Params, source: str) -> None:
    """Read the archive's headers, then each synset in some worker."""
    slices = [Slice(synset.wnid, vars(synset)) for synset in synsets(Path(params.archive))]
    context.map_slices(slices, partial(import_slice, params, source), row_group_rows=256)
    context.commit(
        slices, numbers=published_numbers(context.stage.name, params.format, synsets=len(slices))
    )


def import_slice(params: Params, source: str, piece: Slice) -> Output:
    """Store the pictures of one synset."""
    found = _of_synset(Path(params.archive), Synset(**piece.payload))
    return store_found(found, source, params.store.rules())


def _of_synset(archive: Path, synset: Synset) -> Iterator[Found]:
    for name, data in read_synset(archive, synset):
        where = f"{synset.wnid}.tar/{name}"
        yield Found(name, where, partial(bytes, data), label=synset.wnid)
