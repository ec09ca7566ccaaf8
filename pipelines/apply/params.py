"""Parameters of a model that is applied to rows."""

from typing import Annotated

from pydantic import Field

from orchestration.actor_params import ActorParams
from orchestration.params import EXTERNAL_FILE, OPERATIONAL
from pipelines.apply.model_location import MODEL
from pipelines.finetune.caption_params import DecodingParams
from pipelines.inference.loaded_model import Precision


class ApplyParams(ActorParams):
    """How a model is applied."""

    model: Annotated[str, EXTERNAL_FILE, MODEL]
    "Export folder or checkpoint of the model, or a file of its weights."
    text_tokenizer: Annotated[str | None, EXTERNAL_FILE] = None
    "SentencePiece model of the texts, for weights that come without theirs."
    labels: Annotated[str | None, EXTERNAL_FILE] = None
    "File of the labels of a head that is in a file alone."
    precision: Precision = "fp32"
    "Data type of the forward pass."
    num_best: int = Field(default=5, ge=1)
    "Largest number of answers or labels of a row."
    min_score: float | None = Field(default=None, ge=0, lt=1)
    "Score above which a box is an object; null takes that of the model's recipe."
    decoding: DecodingParams | None = None
    "How captions are generated; null takes what the model's recipe says."
    slice_rows: int = Field(default=256, ge=1)
    "Number of rows in a slice."
    batch_size: Annotated[int | None, OPERATIONAL] = Field(default=None, ge=1)
    "Number of rows in a forward pass; null takes that of the operation."
