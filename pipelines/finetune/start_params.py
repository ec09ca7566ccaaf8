"""Parameters of the stage ``start``: given weights, and what a task changes of their network."""

from typing import Annotated, Any

from pydantic import Field

from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from pipelines.finetune.start_source import OR_FOLDER


class InputParams(StageParams):
    """What a task changes of the network that it starts from; null keeps what the weights say."""

    patch_size: int | None = Field(default=None, ge=1)
    "Side of a patch in pixels; the kernel of the patch embedding is resized to it."
    image_size: int | None = Field(default=None, ge=1)
    "Side of the input image in pixels; position tables are interpolated to it."
    max_text_length: int | None = Field(default=None, ge=3)
    "Largest number of tokens in a text, begin and end included; a longer table is cut."
    pixel_mean: tuple[float, float, float] | None = None
    "Mean of each RGB channel, subtracted from pixels in 0-1; of a bare file null stands for 0.5."
    pixel_std: tuple[float, float, float] | None = None
    "Standard deviation of each channel, which divides the rest; of a bare file null is 0.5."
    fresh_weights: bool = False
    "Keep only configuration and vocabulary: a control that is trained from scratch."

    def changes(self) -> dict[str, Any]:
        """Return the fields of the configuration that the recipe sets."""
        names = ("patch_size", "image_size", "max_text_length", "pixel_mean", "pixel_std")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class StartParams(InputParams):
    """The weights that a fine-tuning starts from."""

    start_from: Annotated[str, EXTERNAL_FILE, OR_URI, OR_FOLDER]
    "Weights: a workdir, checkpoint, export or fine-tuning, a released file, or a URI of one."
    word_head: bool = False
    "Keep the head of pretraining that predicts words, from which a captioning starts."
    text_tokenizer: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "SentencePiece model of the weights' vocabulary; needed if start_from is a bare file."
