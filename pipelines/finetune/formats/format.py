"""What every format of a task's files is: parameters that name the files and read examples."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile

import pyarrow as pa
from pydantic import Field

from dataprep.images import ImageRules
from dataprep.sources.annotations import AnnotationError
from dataprep.sources.lines import ListError
from dataprep.tasks.example import Example
from dataprep.tasks.image_places import Search
from dataprep.tasks.stored_label_maps import LabelMapFiles
from orchestration.params import StageParams
from pipelines.ingest.store_images import StoreParams


class TaskStoreParams(StoreParams):
    """How images of a task are resized and encoded; few are resized, and small ones are kept."""

    short_side: int = Field(default=1024, ge=16)
    "Length in pixels of a stored image's shorter side; smaller images keep their size."
    min_side: int = Field(default=1, ge=1)
    "Smallest length in pixels of an original's shorter side; smaller images are rejects."


class TaskFormat(StageParams):
    """One split of a task's data; ``format`` chooses the class. Examples have no images."""

    tasks: ClassVar[frozenset[str]]
    "Names of the tasks that the examples are for."
    file_errors: ClassVar[tuple[type[Exception], ...]] = (AnnotationError, ListError, BadZipFile)
    "Raised for a file that is not of this format; its message names the file."
    license: ClassVar[str] = "not stated; ask the owner of the files"
    "License of the data as its publisher states it, for the card of a model."

    format: str
    "Name of the format."
    slice_rows: int = Field(default=1024, ge=1)
    "Number of examples per slice."

    @abstractmethod
    def examples(self) -> Iterator[Example]:
        """Read the examples, in the order of the file; URIs must have been replaced by paths.

        Raises:
            one of ``file_errors``: a file is not of this format.
        """

    def expected_rows(self) -> int | None:
        """Estimate the number of examples; None if only reading the files tells.

        Raises:
            one of ``file_errors``: a file is not of this format.
        """
        return None

    def expected_bytes(self) -> int | None:
        """Estimate the bytes of the images that are kept; None if nothing is known."""
        return None

    @property
    def has_labels(self) -> bool:
        """Whether the examples can have labels, as far as the parameters say."""
        return True

    @property
    def has_captions(self) -> bool:
        """Whether the examples can have captions, as far as the parameters say."""
        return True

    @property
    def has_numbers(self) -> bool | None:
        """Whether labels are numbers rather than classes; None if only the files tell."""
        return None

    def image_paths(self) -> Sequence[Path]:
        """Return the folders and zip archives in which the images lie."""
        return ()

    def label_maps(self) -> LabelMapFiles | None:
        """Return where the label maps of images lie; None if the format has none.

        Raises:
            one of ``file_errors``: the list of classes is not of this format.
        """
        return None

    @property
    def search(self) -> Search:
        """How images are looked up by the names of the examples."""
        return "exact"

    def image_rules(self) -> ImageRules:
        """Return how images are stored."""
        return TaskStoreParams().rules()


class StoredFormat(TaskFormat):
    """One split whose images an earlier workflow has stored; they are copied as they are."""

    @abstractmethod
    def num_stored(self) -> int:
        """Return the number of stored images, those of other splits included."""

    @abstractmethod
    def reader(self) -> Callable[[int, int], pa.Table]:
        """Return a function (start, stop) → the examples among these stored images.

        They are rows of ``dataprep.schemas.EXAMPLES``.
        """


class ImageTaskFormat(TaskFormat):
    """One split of the data of a task with images."""

    store: TaskStoreParams = TaskStoreParams()
    "How images are resized and encoded."

    def image_rules(self) -> ImageRules:
        """See :class:`TaskFormat`."""
        return self.store.rules()


class PublishedImageFormat(ImageTaskFormat):
    """One split of a published data set, whose image files have unique names."""

    @property
    def search(self) -> Search:
        """See :class:`TaskFormat`."""
        return "ends"
