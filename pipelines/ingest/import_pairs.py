"""Import pairs: annotated images in archives → stored images with captions.

Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``.
Drops: ``missing_file``, ``damaged_file``, ``damaged_tar``, ``empty_caption``,
``evaluation_image``, and what ``dataprep.images`` says of an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Literal
from zipfile import BadZipFile

from pydantic import Field

from dataprep.sources import webdataset
from dataprep.sources.annotations import AnnotatedImage as Image
from dataprep.sources.annotations import AnnotationError
from dataprep.sources.coco import evaluation_ids, read_coco
from dataprep.sources.entries import EMPTY_CAPTION
from dataprep.sources.flickr30k import read_flickr30k
from dataprep.sources.folders import ImageFolder, files_in
from dataprep.sources.visual_genome import EVALUATION_IMAGE, coco_ids, read_visual_genome
from dataprep.sources.webdataset import DAMAGED_TAR
from dataprep.sources.zips import MISSING_FILE, ZipSet
from orchestration import Context, Output, Slice
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from orchestration.slices import range_slices
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from pipelines.ingest.published_counts import published_numbers
from pipelines.ingest.store_images import Found, StoreParams, refuse, store_found


class ImportPairsParams(StageParams):
    """Images with captions that lie in archives."""

    store: StoreParams = StoreParams()


class WebDatasetParams(ImportPairsParams):
    """WebDataset tars, such as img2dataset's output; a tar is a slice."""

    format: Literal["webdataset"]
    folder: Annotated[str, EXTERNAL_FILE]
    "Path of the folder of tars."


class AnnotatedParams(ImportPairsParams):
    """Annotated images in archives."""

    annotations: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the annotation file."
    slice_rows: int = Field(default=2048, ge=1)
    "Images of a slice."


class CocoParams(AnnotatedParams):
    """COCO captions in Karpathy's split."""

    format: Literal["coco"]
    train_images: Annotated[str, EXTERNAL_FILE]
    "Path of ``train2014.zip``."
    val_images: Annotated[str, EXTERNAL_FILE]
    "Path of ``val2014.zip``."
    splits: tuple[Literal["train", "restval", "val", "test"], ...] = ("train", "restval")

    def archives(self) -> tuple[str, ...]:
        """The archives of images."""
        return self.train_images, self.val_images


class Flickr30kParams(AnnotatedParams):
    """Flickr30K in Karpathy's split: for ``evaluation_sets``, or to fine-tune on."""

    format: Literal["flickr30k"]
    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder ``flickr30k-images``."
    splits: tuple[Literal["train", "val", "test"], ...] = ("val", "test")


class VisualGenomeParams(AnnotatedParams):
    """Visual Genome's region descriptions."""

    format: Literal["visual_genome"]
    images: Annotated[str, EXTERNAL_FILE]
    "Path of ``images.zip``."
    images2: Annotated[str, EXTERNAL_FILE]
    "Path of ``images2.zip``."
    captions: int = Field(default=10, ge=1)
    "Of an image, at most."
    phrases: int = Field(default=1, ge=1)
    "Regions joined into one caption."
    seed: int = 0
    "Draws the regions."
    image_data: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of ``image_data.json``; with ``coco``, COCO's val and test are left out."
    coco: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of Karpathy's ``dataset_coco.json``."

    def archives(self) -> tuple[str, ...]:
        """The archives of images."""
        return self.images, self.images2


AnnotatedImages = CocoParams | Flickr30kParams | VisualGenomeParams
Params = AnnotatedImages | WebDatasetParams


def run(context: Context, params: Params, source: str) -> None:
    """Cut the list of images into slices and store each in some worker."""
    local = context.local_files(params)
    try:
        slices = list(make_slices(local))
    except (AnnotationError, BadZipFile) as error:
        raise RecipeError(str(error)) from None
    process = partial(import_slice, params, source, context.folder)
    context.map_slices(slices, process, row_group_rows=256)
    context.commit(slices, numbers=_published_numbers(context.stage.name, local, slices))


def _published_numbers(stage: str, params: Params, slices: Sequence[Slice]) -> dict[str, float]:
    if isinstance(params, WebDatasetParams):
        return {}
    rows = sum(piece.num_rows or 0 for piece in slices)
    return published_numbers(stage, params.format, rows=rows, file=params.annotations)


def make_slices(params: Params) -> Iterator[Slice]:
    """Cut the images into slices."""
    if isinstance(params, WebDatasetParams):
        for i, name in enumerate(files_in(Path(params.folder), "*.tar")):
            yield Slice(f"{i:06d}", {"tar": name})
        return
    yield from range_slices(len(images_of(params)), params.slice_rows)


@lru_cache(maxsize=2)
def archives_of(paths: tuple[str, ...]) -> ZipSet:
    """Open archives, once in a worker."""
    return ZipSet([Path(path) for path in paths])


@lru_cache(maxsize=2)
def images_of(params: AnnotatedImages) -> Sequence[Image]:
    """Read annotations, once in a worker."""
    path = Path(params.annotations)
    if isinstance(params, CocoParams):
        return read_coco(path, params.splits)
    if isinstance(params, Flickr30kParams):
        return read_flickr30k(path, params.splits)
    members = archives_of(params.archives()).names
    images = read_visual_genome(
        path, members, captions=params.captions, phrases=params.phrases, seed=params.seed
    )
    if params.image_data is None or params.coco is None:
        return images
    evaluated, ids = evaluation_ids(Path(params.coco)), coco_ids(Path(params.image_data))
    return [
        replace(p, excluded=f"COCO {ids[p.name]}") if ids.get(p.name) in evaluated else p
        for p in images
    ]


def import_slice(params: Params, source: str, folder: Store, piece: Slice) -> Output:
    """Store the images of one slice; ``folder`` is the stage's."""
    params = with_local_files(params, folder)
    found = (
        _of_tar(Path(params.folder), piece.payload["tar"])
        if isinstance(params, WebDatasetParams)
        else _annotated(params, piece.payload["start"], piece.payload["stop"])
    )
    return store_found(found, source, params.store.rules())


def _annotated(params: AnnotatedImages, start: int, stop: int) -> Iterator[Found]:
    archives: ZipSet | ImageFolder = (
        ImageFolder(Path(params.images))
        if isinstance(params, Flickr30kParams)
        else archives_of(params.archives())
    )
    for image in images_of(params)[start:stop]:
        if image.excluded:
            read = partial(refuse, EVALUATION_IMAGE, image.excluded)
        elif not image.captions:
            read = partial(refuse, EMPTY_CAPTION, "no caption")
        else:
            read = partial(archives.read, image.member)
        yield Found(image.name, image.member, read, image.captions)


def _of_tar(folder: Path, tar: str) -> Iterator[Found]:
    for sample in webdataset.read_tar(folder / tar):
        name = f"{Path(tar).with_suffix('')}/{sample.name}"
        if sample.problem:
            read = partial(refuse, DAMAGED_TAR, sample.problem)
        elif sample.image is None:
            read = partial(refuse, MISSING_FILE, "no image")
        elif not sample.caption:
            read = partial(refuse, EMPTY_CAPTION, "no caption")
        else:
            read = partial(bytes, sample.image)
        yield Found(name, f"{tar}: {sample.name}", read, [sample.caption])
