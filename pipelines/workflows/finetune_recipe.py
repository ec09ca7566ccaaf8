"""The recipe of a fine-tuning: a task, its data, the weights to start from, and the training."""

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
from pipelines.finetune.tasks.image_classification import MIX_GROUP, ImageClassification
from pipelines.workflows.pretrain_recipe import MiniwebParams

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
    published: Annotated[dict[str, float], OPERATIONAL] = Field(default_factory=dict)
    "Published values of metrics, such as `test/accuracy`, shown beside those that are measured."

    def start_params(self) -> StartParams:
        """Return the parameters of the stage ``start``."""
        return StartParams(
            start_from=self.start_from,
            text_tokenizer=self.text_tokenizer,
            **self.network.model_dump(),
        )

    @model_validator(mode="after")
    def _parts_agree(self) -> "FinetuneRecipe":
        splits = self.data.splits
        for split, files in splits.items():
            if self.task.name not in files.tasks:
                raise ValueError(
                    f"data.{split}.format = {files.format} has no examples of the task "
                    f"{self.task.name}; it is for {', '.join(sorted(files.tasks))}"
                )
        is_trained = bool(self.finetune.steps or self.finetune.epochs)
        if is_trained and "train" not in splits:
            raise ValueError("data.train: needed to train; for no training set finetune.epochs=0")
        if not splits.keys() - {"train"}:
            raise ValueError("data: give dev or test, on which the network is scored")
        if isinstance(self.task, ImageClassification) and (self.task.mixup or self.task.cutmix):
            finetune = self.finetune
            for key, number in (
                ("micro_batch", finetune.micro_batch),
                ("batch_size / finetune.substreams", finetune.batch_size // finetune.substreams),
            ):
                if number % MIX_GROUP:
                    raise ValueError(
                        f"finetune.{key} = {number}, but task.mixup and task.cutmix mix images in "
                        f"groups of {MIX_GROUP}; give a multiple of it"
                    )
        return self
