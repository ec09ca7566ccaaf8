"""Own annotations: CSV, TSV or JSON lines with named columns, for each kind of task."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator

from dataprep.tasks import own_files
from dataprep.tasks.example import Example
from dataprep.tasks.image_places import Search
from dataprep.tasks.own_files import OwnFile
from orchestration.params import EXTERNAL_FILE, OR_URI, is_uri
from pipelines.finetune.formats.format import ImageTaskFormat, TaskFormat
from pipelines.ingest.file_slices import expected_lines


class OwnAnnotations(TaskFormat):
    """A file of your own annotations with named columns."""

    file: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of a `.jsonl`, `.csv` or `.tsv` file, plain or compressed."
    quoting: bool | None = None
    "Whether fields may stand in double quotes (RFC 4180); by default, in CSV but not in TSV."

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns that the file must have."""
        found = (getattr(self, name) for name in type(self).model_fields if name.endswith("column"))
        return [column for column in found if column is not None]

    @property
    def has_labels(self) -> bool:
        """See :class:`TaskFormat`."""
        names = ("label_column", "answer_column")
        return all(getattr(self, name, "") is not None for name in names)

    @property
    def own_file(self) -> OwnFile:
        """The file as its reader takes it."""
        return OwnFile(Path(self.file), self.columns, self.quoting)

    def expected_rows(self) -> int:
        """See :class:`TaskFormat`."""
        return expected_lines(Path(self.file), (), lambda _: self.own_file.check())


class OwnImageAnnotations(ImageTaskFormat, OwnAnnotations):
    """A file of your own annotations of images."""

    images: Annotated[str | None, EXTERNAL_FILE] = None
    "Folder or zip archive at which relative paths of images begin; by default the file's folder."

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if self.images is None and is_uri(self.file):
            raise ValueError("images is missing: the folder of the images, as file is a URI")
        return self

    @property
    def search(self) -> Search:
        """See :class:`TaskFormat`."""
        return "exact" if is_uri(self.file) else "anywhere"

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(self.images) if self.images else Path(self.file).parent]


class OwnQuestions(OwnImageAnnotations):
    """Your own questions about images."""

    tasks: ClassVar = frozenset({"vqa"})

    format: Literal["own_questions"]
    "A row per question."
    image_column: str = "image"
    "Name of the column of the image's path."
    question_column: str = "question"
    "Name of the column of the question."
    answer_column: str | None = "answer"
    "Name of the column of the answers: a list in JSON, else separated by `|`; null without any."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return own_files.read_questions(
            self.own_file, self.image_column, self.question_column, self.answer_column
        )


class OwnImagePairs(OwnImageAnnotations):
    """Your own sentences that are true or false of two images."""

    tasks: ClassVar = frozenset({"nlvr2"})

    format: Literal["own_image_pairs"]
    "A row per sentence and pair of images."
    first_image_column: str = "image1"
    "Name of the column of the first image's path."
    second_image_column: str = "image2"
    "Name of the column of the second image's path."
    sentence_column: str = "sentence"
    "Name of the column of the sentence."
    label_column: str | None = "label"
    "Name of the column of the label, true or false; null without labels."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        images = (self.first_image_column, self.second_image_column)
        return own_files.read_image_pairs(
            self.own_file, images, self.sentence_column, self.label_column
        )


class OwnCaptions(OwnImageAnnotations):
    """Your own images with captions, for captioning and retrieval."""

    tasks: ClassVar = frozenset({"captioning", "retrieval"})

    format: Literal["own_captions"]
    "A row per image or per caption; rows of one image are joined."
    image_column: str = "image"
    "Name of the column of the image's path."
    caption_column: str | None = "caption"
    "Name of the column of the caption; JSON may hold a list of captions. Null without captions."

    @property
    def has_captions(self) -> bool:
        """See :class:`TaskFormat`."""
        return self.caption_column is not None

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return own_files.read_captions(self.own_file, self.image_column, self.caption_column)


class OwnLabels(OwnImageAnnotations):
    """Your own images with one or several classes each."""

    tasks: ClassVar = frozenset({"image_classification"})

    format: Literal["own_labels"]
    "A row per image."
    image_column: str = "image"
    "Name of the column of the image's path."
    label_column: str | None = "label"
    "Name of the column of the labels: a list in JSON, else separated by `|`; null without any."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return own_files.read_labels(self.own_file, self.image_column, self.label_column)


class OwnSentences(OwnAnnotations):
    """Your own sentences, or pairs of them, with a label or a number."""

    tasks: ClassVar = frozenset({"text_classification"})

    format: Literal["own_sentences"]
    "A row per sentence or pair of sentences."
    sentence_column: str = "sentence"
    "Name of the column of the sentence."
    second_sentence_column: str | None = None
    "Name of the column of the second sentence; null for single sentences."
    label_column: str | None = "label"
    "Name of the column of the label or number; null without labels."

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        sentences = [self.sentence_column, self.second_sentence_column]
        return own_files.read_sentences(
            self.own_file, [name for name in sentences if name], self.label_column
        )
