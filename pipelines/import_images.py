"""Import: an ImageNet-21K archive → stored pictures, without unpacking it.

Out: ``data`` (see ``dataprep.schemas.IMAGES``; the wnid is the label) and ``rejects``.
Drops: what ``dataprep.images`` says of a picture. A slice is one synset.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa

from dataprep.images import ImageError, store_image
from dataprep.schemas import IMAGES, reject, rejects_table
from dataprep.sources.imagenet21k import Synset, read_synset, synsets
from orchestration import Context, Output, Slice
from orchestration.params import EXTERNAL_FILE, StageParams
from pipelines.download import StoreParams, image_row


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
    context.commit(slices)


def import_slice(params: Params, source: str, piece: Slice) -> Output:
    """Store the pictures of one synset."""
    images, rejects = [], []
    synset, rules = Synset(**piece.payload), params.store.rules()
    for name, data in read_synset(Path(params.archive), synset):
        sample_id = f"{source}/{name}"
        try:
            stored = store_image(data, rules)
            images.append(image_row(sample_id, source, stored, [], synset.wnid))
        except ImageError as error:
            detail = f"{synset.wnid}.tar/{name}: {error.detail}"
            rejects.append(reject(sample_id, source, error.reason, detail))
    return Output(
        num_rows_in=len(images) + len(rejects),
        tables={
            "data": pa.Table.from_pylist(images, IMAGES),
            "rejects": rejects_table(rejects),
        },
    )
