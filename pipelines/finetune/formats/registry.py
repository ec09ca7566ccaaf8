"""Every format of a task's files that a recipe can name: one line each."""

from typing import TYPE_CHECKING, Annotated, Final, Union

from pydantic import Field

from pipelines.finetune.formats.class_folder import ClassFolder
from pipelines.finetune.formats.coco_captions import CocoCaptions
from pipelines.finetune.formats.coco_instances import CocoInstances
from pipelines.finetune.formats.flickr30k_captions import Flickr30kCaptions
from pipelines.finetune.formats.format import TaskFormat
from pipelines.finetune.formats.glue import Glue
from pipelines.finetune.formats.label_folders import Ade20k, LabelFolders
from pipelines.finetune.formats.nlvr2 import Nlvr2
from pipelines.finetune.formats.nocaps import Nocaps
from pipelines.finetune.formats.own_files import (
    OwnCaptions,
    OwnImagePairs,
    OwnLabels,
    OwnQuestions,
    OwnSentences,
)
from pipelines.finetune.formats.pretraining_pairs import PretrainingPairs
from pipelines.finetune.formats.vqav2 import Vqav2

FORMATS: Final[tuple[type[TaskFormat], ...]] = (
    Vqav2,
    Nlvr2,
    CocoCaptions,
    CocoInstances,
    Flickr30kCaptions,
    Nocaps,
    PretrainingPairs,
    Ade20k,
    LabelFolders,
    ClassFolder,
    Glue,
    OwnQuestions,
    OwnImagePairs,
    OwnCaptions,
    OwnLabels,
    OwnSentences,
)

if TYPE_CHECKING:
    AnyFormat = TaskFormat
else:
    AnyFormat = Annotated[Union[FORMATS], Field(discriminator="format")]  # noqa: UP007
