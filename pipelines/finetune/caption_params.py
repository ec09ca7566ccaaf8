"""Parameters of captioning: which tokens its loss leaves out, and how captions are generated."""

from typing import Self

from pydantic import Field, model_validator

from model.finetuning.generation import LARGEST_PENALTY, MOST_BEAMS, Decoding
from model.training import randomness
from orchestration.params import StageParams
from pipelines.finetune.batch import Ints


class DropWorst(StageParams):
    """Which masked tokens the loss leaves out: late in the training, those of the largest loss."""

    ratio: float = Field(default=0.2, gt=0, lt=1)
    "Fraction of the masked tokens of a batch that is left out."
    after_steps: int = Field(default=12_000, ge=0)
    "Number of steps before tokens are left out."


class DecodingParams(StageParams):
    """How captions are generated, for the split dev while training and for predictions."""

    num_beams: int = Field(default=3, ge=1, le=MOST_BEAMS)
    "Captions that are continued side by side; as many are kept, the best one is scored."
    length_penalty: float = Field(default=0.6, ge=0, le=LARGEST_PENALTY)
    "Exponent of the length by which a caption's log-probability is divided."
    max_length: int = Field(default=64, ge=3)
    "Most tokens of a caption, begin and end included; never more than network.max_text_length."
    temperature: float | None = Field(default=None, gt=0)
    "Divisor of the scores from which tokens are drawn, with one beam; null searches for the best."
    top_p: float = Field(default=1.0, gt=0, le=1)
    "Probability of the most likely tokens from which one is drawn."
    seed: int = Field(default=0, ge=0, lt=2**63)
    "Seed of what is drawn."

    @model_validator(mode="after")
    def _can_decode(self) -> Self:
        self.decoding(self.max_length)
        return self

    def decoding(self, longest: int) -> Decoding:
        """Return the parameters of the generation with at most ``longest`` tokens."""
        return Decoding(
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            max_length=min(self.max_length, longest),
            temperature=self.temperature,
            top_p=self.top_p,
        )


def draw_seeds(seed: int, numbers: Ints) -> list[int]:
    """Return the seed of the draws of each image, of its number alone.

    Args:
        seed: of all draws.
        numbers: (B,) of the images.
    """
    return [int(each) >> 1 for each in randomness.bits(seed, numbers)]  # 63 bits fit an int64
