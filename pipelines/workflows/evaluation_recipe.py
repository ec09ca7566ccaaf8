"""The recipe of an evaluation alone: given weights, and the data on which they are measured."""

from typing import Annotated

from pydantic import Field, model_validator

from orchestration import Recipe
from orchestration.actor_params import ActorParams
from orchestration.params import EXTERNAL_FILE, OR_URI
from pipelines.curate.curate import Params as CurateParams
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.sources.registry import AnySource
from pipelines.pretrain.evaluation.params import Params as EvaluateParams
from pipelines.pretrain.params import OR_FOLDER
from pipelines.workflows.pretrain_recipe import SHORT_NAME, MiniwebParams, check_contacts


class EncodeParams(ActorParams):
    """How images are cut and encoded by the image tokenizer of the weights."""

    min_crop_scale: float = Field(default=0.6, gt=0, le=1)
    "Smallest fraction of an image's area that its one view covers."


class EvaluationRecipe(Recipe):
    """From given weights and own data to what the weights have learned."""

    miniweb: MiniwebParams | None = None
    "Sizes of the miniature web to draw and serve; null if the sources are real."
    model: Annotated[str, EXTERNAL_FILE, OR_URI, OR_FOLDER]
    "Weights with their tokenizers: a workdir, checkpoint or export of a pretraining."
    sources: dict[Annotated[str, Field(pattern=SHORT_NAME)], AnySource]
    "Lists of pairs, archives of images and corpora of documents to measure on, by name."
    held_out_fraction: float = Field(default=0.5, gt=0, lt=1)
    "Expected fraction of rows to measure on; neighbors, probes and heads learn from the others."
    download: DownloadParams | None = None
    "How images are downloaded, and how those of own lists are stored."
    curate: CurateParams = CurateParams()
    "Which images and captions are kept."
    encode: EncodeParams = EncodeParams()
    "How images are cut and encoded."
    evaluate: EvaluateParams = EvaluateParams()
    "What is measured."

    @model_validator(mode="after")
    def _images_can_be_downloaded(self) -> "EvaluationRecipe":
        if not self.sources:
            raise ValueError("sources: name at least one list, archive or corpus to measure on")
        check_contacts("sources", self.sources, self.download)
        return self
