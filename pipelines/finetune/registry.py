"""Every task that a recipe can name: one line each."""

from typing import TYPE_CHECKING, Annotated, Final, Union

from pydantic import Field

from pipelines.finetune.task import Task
from pipelines.finetune.tasks.captioning import Captioning
from pipelines.finetune.tasks.detection import Detection
from pipelines.finetune.tasks.image_classification import ImageClassification
from pipelines.finetune.tasks.nlvr2 import VisualReasoning
from pipelines.finetune.tasks.retrieval import Retrieval
from pipelines.finetune.tasks.segmentation import Segmentation
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.finetune.tasks.vqa import VisualQuestionAnswering

TASKS: Final[tuple[type[Task], ...]] = (
    Retrieval,
    Captioning,
    ImageClassification,
    VisualQuestionAnswering,
    VisualReasoning,
    TextClassification,
    Detection,
    Segmentation,
)

if TYPE_CHECKING:
    AnyTask = Task
else:
    AnyTask = Annotated[Union[TASKS], Field(discriminator="name")]  # noqa: UP007
