"""VQAv2: questions on COCO images, each answered by ten annotators."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dataprep.tasks.example import Example
from dataprep.tasks.vqav2 import Part, QuestionFiles, read_vqav2
from orchestration.params import EXTERNAL_FILE, StageParams
from pipelines.finetune.formats.format import PublishedImageFormat


class VqaFiles(StageParams):
    """The files of one of the published splits."""

    questions: Annotated[str, EXTERNAL_FILE]
    "Path of `v2_OpenEnded_mscoco_<split>_questions.json`."
    annotations: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of `v2_mscoco_<split>_annotations.json`; null if there is none, as for a test split."
    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder or zip archive of the images `COCO_<split>_<id>.jpg`."

    def as_read(self) -> QuestionFiles:
        """Return the files of text as their reader takes them."""
        annotations = self.annotations
        return QuestionFiles(Path(self.questions), Path(annotations) if annotations else None)


class Vqav2(PublishedImageFormat):
    """Questions of VQAv2, of one or several published splits."""

    license: ClassVar = "annotations CC BY 4.0; each image under its license on Flickr"
    tasks: ClassVar = frozenset({"vqa"})

    format: Literal["vqav2"]
    "VQAv2's JSON files of questions and annotations, and COCO's images."
    files: tuple[VqaFiles, ...] = Field(min_length=1)
    "Files of each published split to read."
    part: Part = "all"
    "`dev`: the questions of some validation images; `train`: all others; `all`: every question."
    num_dev_images: int = Field(default=1000, ge=1)
    "Number of validation images that are drawn for `dev`."
    seed: int = 0
    "Seed of the draw of these images."

    @property
    def has_labels(self) -> bool:
        """See :class:`TaskFormat`."""
        return any(each.annotations for each in self.files)

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        files = [
            QuestionFiles(
                Path(each.questions), Path(each.annotations) if each.annotations else None
            )
            for each in self.files
        ]
        return read_vqav2(files, self.part, self.num_dev_images, self.seed)

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(each) for each in dict.fromkeys(each.images for each in self.files)]
