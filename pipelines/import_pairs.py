"""Import pairs: annotated pictures in archives → stored pictures with captions.

Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``.
Drops: ``missing_file``, ``damaged_file``, ``empty_caption``, ``evaluation_picture``, and what
``dataprep.images`` says of a picture.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Literal
from zipfile import BadZipFile

import pyarrow as pa
from pydantic import Field

from dataprep.images import ImageError, store_image
from dataprep.schemas import IMAGES, reject, rejects_table
from dataprep.sources.annotations import Annotated as Picture
from dataprep.sources.annotations import AnnotationError
from dataprep.sources.coco import evaluation_ids, read_coco
from dataprep.sources.entries import EMPTY_CAPTION
from dataprep.sources.visual_genome import EVALUATION_PICTURE, coco_ids, read_visual_genome
from dataprep.sources.zips import MemberError, ZipSet
from orchestration import Context, Output, Slice
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, StageParams
from pipelines.download import StoreParams, image_row


class AnnotatedParams(StageParams):
    """Annotated pictures in archives."""

    annotations: Annotated[str, EXTERNAL_FILE]
    "Path of the annotation file."
    slice_rows: int = Field(default=2048, ge=1)
    "Pictures of a slice."
    store: StoreParams = StoreParams()


class CocoParams(AnnotatedParams):
    """COCO captions in Karpathy's split."""

    format: Literal["coco"]
    train_images: Annotated[str, EXTERNAL_FILE]
    "Path of ``train2014.zip``."
    val_images: Annotated[str, EXTERNAL_FILE]
    "Path of ``val2014.zip``."
    splits: tuple[Literal["train", "restval", "val", "test"], ...] = ("train", "restval")

    def archives(self) -> tuple[str, ...]:
        """The archives of pictures."""
        return self.train_images, self.val_images


class VisualGenomeParams(AnnotatedParams):
    """Visual Genome's region descriptions."""

    format: Literal["visual_genome"]
    images: Annotated[str, EXTERNAL_FILE]
    "Path of ``images.zip``."
    images2: Annotated[str, EXTERNAL_FILE]
    "Path of ``images2.zip``."
    captions: int = Field(default=10, ge=1)
    "Of a picture, at most."
    phrases: int = Field(default=1, ge=1)
    "Regions joined into one caption."
    seed: int = 0
    "Draws the regions."
    image_data: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of ``image_data.json``; with ``coco``, pictures of COCO's val and test are left out."
    coco: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of Karpathy's ``dataset_coco.json``."

    def archives(self) -> tuple[str, ...]:
        """The archives of pictures."""
        return self.images, self.images2


Params = CocoParams | VisualGenomeParams


def run(context: Context, params: Params, source: str) -> None:
    """Cut the list of pictures into slices and store each in some worker."""
    try:
        total = len(pictures_of(params))
    except (AnnotationError, BadZipFile) as error:
        raise RecipeError(str(error)) from None
    slices = [
        Slice(
            f"{i:06d}",
            {"start": start, "stop": min(start + params.slice_rows, total)},
            min(params.slice_rows, total - start),
        )
        for i, start in enumerate(range(0, total, params.slice_rows))
    ]
    context.map_slices(slices, partial(import_slice, params, source), row_group_rows=256)
    context.commit(slices)


@lru_cache(maxsize=2)
def archives_of(paths: tuple[str, ...]) -> ZipSet:
    """Open archives, once in a worker."""
    return ZipSet([Path(path) for path in paths])


@lru_cache(maxsize=2)
def pictures_of(params: Params) -> Sequence[Picture]:
    """Read annotations, once in a worker."""
    path = Path(params.annotations)
    if isinstance(params, CocoParams):
        return read_coco(path, params.splits)
    members = archives_of(params.archives()).names
    pictures = read_visual_genome(
        path, members, captions=params.captions, phrases=params.phrases, seed=params.seed
    )
    if params.image_data is None or params.coco is None:
        return pictures
    evaluated, ids = evaluation_ids(Path(params.coco)), coco_ids(Path(params.image_data))
    return [
        replace(p, excluded=f"COCO {ids[p.name]}") if ids.get(p.name) in evaluated else p
        for p in pictures
    ]


def import_slice(params: Params, source: str, piece: Slice) -> Output:
    """Store the pictures of one slice."""
    images, rejects = [], []
    archives, rules = archives_of(params.archives()), params.store.rules()
    pictures = pictures_of(params)[piece.payload["start"] : piece.payload["stop"]]
    for picture in pictures:
        sample_id = f"{source}/{picture.name}"
        try:
            if picture.excluded:
                raise MemberError(EVALUATION_PICTURE, picture.excluded)
            if not picture.captions:
                raise MemberError(EMPTY_CAPTION, picture.member)
            stored = store_image(archives.read(picture.member), rules)
            images.append(image_row(sample_id, source, stored, picture.captions, ""))
        except (ImageError, MemberError) as error:
            rejects.append(reject(sample_id, source, error.reason, error.detail))
    return Output(
        num_rows_in=len(pictures),
        tables={"data": pa.Table.from_pylist(images, IMAGES), "rejects": rejects_table(rejects)},
    )
