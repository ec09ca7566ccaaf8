"""Visual Genome's region descriptions, with the zip archives of images."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dataprep.sources.annotations import AnnotatedImage
from dataprep.sources.coco import evaluation_ids
from dataprep.sources.visual_genome import coco_ids, read_visual_genome
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.ingest.annotated_images import AnnotatedImages


class VisualGenome(AnnotatedImages):
    """Visual Genome's region descriptions, each or several joined as a caption."""

    license: ClassVar = "CC BY 4.0; each image under its license on Flickr"

    format: Literal["visual_genome"]
    "`region_descriptions.json` and the two zip archives of images."
    images: Annotated[str, EXTERNAL_FILE]
    "Path of `images.zip`."
    images2: Annotated[str, EXTERNAL_FILE]
    "Path of `images2.zip`."
    max_captions: int | None = Field(default=None, ge=1)
    "Largest number of captions per image; null keeps all regions, as the paper's pair count does."
    regions_per_caption: int = Field(default=1, ge=1)
    "Number of region descriptions joined into one caption."
    seed: int = 0
    "Seed of the choice of regions."
    image_data: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of `image_data.json`; with `coco`, images of COCO's val and test are rejects."
    coco: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of Karpathy's `dataset_coco.json`."

    def read_annotations(self, members: Collection[str]) -> Iterator[AnnotatedImage]:
        """See :class:`AnnotatedImages`; marks what COCO evaluates on."""
        images = read_visual_genome(
            Path(self.annotations),
            members,
            captions=self.max_captions,
            phrases=self.regions_per_caption,
            seed=self.seed,
        )
        if self.image_data is None or self.coco is None:
            yield from images
            return
        evaluated, ids = evaluation_ids(Path(self.coco)), coco_ids(Path(self.image_data))
        for image in images:
            # A repeated image has its number behind the name.
            found = ids.get(image.name.partition("+")[0])
            yield replace(image, excluded=f"COCO {found}") if found in evaluated else image

    def archives(self) -> Sequence[Path]:
        """See :class:`AnnotatedImages`."""
        return [Path(self.images), Path(self.images2)]
