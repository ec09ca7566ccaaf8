"""The recipe of a fine-tuning: a task, its data, the weights to start from, and the training."""

import difflib
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from orchestration import Recipe
from orchestration.params import EXTERNAL_FILE, OPERATIONAL, OR_URI, StageParams
from pipelines.finetune.formats.format import TaskFormat
from pipelines.finetune.formats.registry import AnyFormat
from pipelines.finetune.params import FinetuneParams, PredictParams
from pipelines.finetune.registry import AnyTask
from pipelines.finetune.start_params import InputParams, StartParams
from pipelines.finetune.start_source import OR_FOLDER
from pipelines.finetune.task import Task
from pipelines.finetune.tasks.image_classification import MIX_GROUP, ImageClassification
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.finetune.views import AugmentParams
from pipelines.workflows.pretrain_recipe import MiniwebParams

Metric = Annotated[float, Field(ge=-1, le=10)]
"A correlation may be negative; CIDEr is the only metric above 1."
Split = Literal["train", "dev", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "dev", "test")


class DataParams(StageParams):
    """The files of each split."""

    train: AnyFormat | None = None
    "Examples to train on; null only if nothing is trained (finetune.epochs = 0)."
    dev: AnyFormat | None = None
    "Examples on which the best weights are chosen; null takes the last weights."
    test: AnyFormat | None = None
    "Examples that are only predicted; they need no labels."

    @property
    def splits(self) -> dict[Split, TaskFormat]:
        """Return the splits that there are, in their order."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: files for split, files in found.items() if files is not None}


class FinetuneRecipe(Recipe):
    """From given weights and a task's files to a fine-tuned model and its score."""

    miniweb: MiniwebParams | None = None
    "Sizes of the miniature web to draw; null if the files are real."
    task: AnyTask
    "The task, by its `name`, with its own parameters."
    start_from: Annotated[str, EXTERNAL_FILE, OR_URI, OR_FOLDER]
    "Weights: a workdir, checkpoint, export or fine-tuning, a released file, or a URI of one."
    text_tokenizer: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "SentencePiece model of the weights' vocabulary; needed if start_from is a bare file."
    network: InputParams = InputParams()
    "What the task changes of the network that it starts from."
    data: DataParams
    "The files of each split; each has its own `format`."
    finetune: FinetuneParams = FinetuneParams()
    "How the network is trained."
    predict: PredictParams = PredictParams()
    "How the splits dev and test are predicted."
    published: Annotated[dict[str, Metric], OPERATIONAL] = Field(default_factory=dict)
    "Published values of metrics, such as `test/accuracy`, shown beside those that are measured."

    def start_params(self) -> StartParams:
        """Return the parameters of the stage ``start``."""
        return StartParams(
            start_from=self.start_from,
            text_tokenizer=self.text_tokenizer,
            word_head=self.task.word_head,
            **self.network.model_dump(),
        )

    @property
    def is_trained(self) -> bool:
        """Return whether weights are trained rather than evaluated as they are."""
        return bool(self.finetune.steps or self.finetune.epochs)

    @model_validator(mode="after")
    def _parts_agree(self) -> "FinetuneRecipe":
        for split, files in self.data.splits.items():
            _check_files(self.task, split, files)
        _check_splits(self)
        _check_mixing(self.task, self.finetune)
        _check_augment(self.task, self.finetune.augment)
        _check_published(self)
        return self


def _check_files(task: Task, split: Split, files: TaskFormat) -> None:
    """Check that the examples of a split are for the task.

    Raises:
        ValueError: they are not.
    """
    if task.name not in files.tasks:
        raise ValueError(
            f"data.{split}.format = {files.format} has no examples of the task "
            f"{task.name}; it is for {', '.join(sorted(files.tasks))}"
        )
    if (task.needs_labels or task.is_dense) and split != "test" and not files.has_labels:
        raise ValueError(
            f"data.{split} names no labels, without which only the split test can do; name the "
            "annotations, or the column of the labels"
        )
    if task.by_text and not files.has_captions and (split != "test" or task.num_texts[0]):
        raise ValueError(
            f"data.{split} names no captions, without which only the split test of a captioning "
            f"can do; set data.{split}.caption_column"
        )
    if isinstance(task, TextClassification) and files.has_numbers not in (None, task.is_regression):
        labels, metric = (
            ("classes", "accuracy") if task.is_regression else ("numbers", "correlation")
        )
        raise ValueError(
            f"data.{split} has {labels} as labels, but task.scored_by = {task.scored_by}; set "
            f"task.scored_by={metric}"
        )


def _check_splits(recipe: FinetuneRecipe) -> None:
    splits = recipe.data.splits
    if recipe.is_trained and "train" not in splits:
        raise ValueError("data.train: needed to train; for no training set finetune.epochs=0")
    if not splits.keys() - {"train"}:
        raise ValueError("data: give dev or test, on which the network is scored")


def _check_mixing(task: Task, finetune: FinetuneParams) -> None:
    if not isinstance(task, ImageClassification) or not (task.mixup or task.cutmix):
        return
    for key, number in (
        ("micro_batch", finetune.micro_batch),
        ("batch_size / finetune.substreams", finetune.batch_size // finetune.substreams),
    ):
        if number % MIX_GROUP:
            raise ValueError(
                f"finetune.{key} = {number}, but task.mixup and task.cutmix mix images in "
                f"groups of {MIX_GROUP}; give a multiple of it"
            )


def _check_augment(task: Task, augment: AugmentParams) -> None:
    """Check that no change of images is asked for that the task does not make.

    Raises:
        ValueError: one is; it would have no effect.
    """
    if not task.is_dense:
        return
    for key, value in augment:
        if key != "flip" and value != getattr(AugmentParams(), key):
            raise ValueError(
                f"finetune.augment.{key} = {value} has no effect on the task {task.name}, which "
                "changes images by its own parameters and finetune.augment.flip alone; leave it out"
            )


def _check_published(recipe: FinetuneRecipe) -> None:
    """Check that published values are those of metrics that are measured.

    Raises:
        ValueError: one is not; the message names the nearest metric.
    """
    evaluated = [split for split in recipe.data.splits if split != "train"]
    known = [f"{split}/{name}" for split in evaluated for name in recipe.task.metric_names]
    for key in recipe.published:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"published: {key} is not measured; {hint}")
