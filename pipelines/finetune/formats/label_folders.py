"""Images and their label maps in two folders: ADE20K, and own data."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dataprep.tasks.example import Example
from dataprep.tasks.label_classes import LabelClasses, read_ade20k_classes, read_label_classes
from dataprep.tasks.label_folders import count_label_folders, read_label_folders
from dataprep.tasks.stored_label_maps import LabelMapFiles
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.finetune.formats.format import ImageTaskFormat


class _TwoFolders(ImageTaskFormat):
    """Images, and label maps of the same names."""

    tasks: ClassVar = frozenset({"segmentation"})

    images: Annotated[str, EXTERNAL_FILE]
    "Path of the folder of the images."
    masks: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of the folder of the label maps; null for a split without labels."
    classes: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the list of classes."

    @abstractmethod
    def read_classes(self) -> LabelClasses:
        """Read the list of classes.

        Raises:
            one of ``file_errors``: it is none.
        """

    @property
    def has_labels(self) -> bool:
        """See :class:`TaskFormat`."""
        return self.masks is not None

    def examples(self) -> Iterator[Example]:
        """See :class:`TaskFormat`."""
        return read_label_folders(Path(self.images), self._masks)

    def expected_rows(self) -> int:
        """See :class:`TaskFormat`."""
        self.read_classes()
        return count_label_folders(Path(self.images), self._masks)

    def image_paths(self) -> Sequence[Path]:
        """See :class:`TaskFormat`."""
        return [Path(self.images)]

    def label_maps(self) -> LabelMapFiles:
        """See :class:`TaskFormat`."""
        return LabelMapFiles(self._masks, self.read_classes())

    @property
    def _masks(self) -> Path | None:
        return None if self.masks is None else Path(self.masks)


class Ade20k(_TwoFolders):
    """The scene parsing challenge of 2016 (ADE20K), as it is published."""

    format: Literal["ade20k"]
    "A folder of images, a folder of label maps, and `objectInfo150.txt` as `classes`."

    def read_classes(self) -> LabelClasses:
        """See above: the value 0 is ignored."""
        return read_ade20k_classes(Path(self.classes))


class LabelFolders(_TwoFolders):
    """Your own images and label maps, which show classes by values or by colors."""

    format: Literal["label_folders"]
    "Two folders, and a CSV or TSV file with the classes, their values or their colors."

    def read_classes(self) -> LabelClasses:
        """See above."""
        return read_label_classes(Path(self.classes))
