"""Start: given weights → those of the task's input size, with their configuration and vocabulary.

Out: ``weights.safetensors`` (the encoder as ``network.…`` and the heads of tasks by their released
names), ``network.json``, ``spm.model``, ``start.json`` (what was done) and, of an earlier
fine-tuning, ``labels.json``.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Final

from pydantic import Field
from torch import Tensor

from model import BEiT3Config
from model.finetuning.task_networks import TaskNetwork
from orchestration import Context, Dataset, Stage
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from pipelines.pretrain.params import OR_FOLDER
from tokenizer.text import TextTokenizer

WEIGHTS_FILE: Final = "weights.safetensors"
REPORT_FILE: Final = "start.json"


class InputParams(StageParams):
    """What a task changes of the network that it starts from; null keeps what the weights say."""

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


class StartParams(InputParams):
    """The weights that a fine-tuning starts from."""

    start_from: Annotated[str, EXTERNAL_FILE, OR_URI, OR_FOLDER]
    "Weights: a workdir, checkpoint, export or fine-tuning, a released file, or a URI of one."
    text_tokenizer: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "SentencePiece model of the weights' vocabulary; needed if start_from is a bare file."


def stage(params: StartParams) -> Stage:
    """Return the stage ``start``."""
    return Stage(
        "start",
        lambda context: run(context, params),
        params,
        requires=partial(requires, params),
    )


def requires(params: StartParams) -> str | None:
    """Return why the weights or the vocabulary cannot be used, as far as a plan knows them."""
    raise NotImplementedError


def configuration_of(params: StartParams) -> BEiT3Config | None:
    """Return the configuration of the network; None if the file must be fetched to know it."""
    raise NotImplementedError


def plan_lines(params: StartParams) -> Iterator[str]:
    """Yield what is done with the weights, as far as a plan knows them."""
    raise NotImplementedError


def run(context: Context, params: StartParams) -> None:
    """Read the weights and write what the other stages take, as one task."""
    raise NotImplementedError


def load_config(dataset: Dataset) -> BEiT3Config:
    """Return the configuration of the network that the output of ``start`` fits."""
    raise NotImplementedError


def load_text_tokenizer(dataset: Dataset) -> TextTokenizer:
    """Return the text tokenizer in the output of ``start``."""
    raise NotImplementedError


def load_weights(dataset: Dataset) -> dict[str, Tensor]:
    """Return the weights in the output of ``start``; none if the network starts from scratch."""
    raise NotImplementedError


def load_labels(dataset: Dataset) -> list[str] | None:
    """Return the labels that the given head was trained for, in its order, if they are known."""
    raise NotImplementedError


def apply(
    network: TaskNetwork,
    weights: Mapping[str, Tensor],
    *,
    given_labels: list[str] | None = None,
    labels: list[str] | None = None,
) -> list[str]:
    """Load the encoder and the heads that fit; return in lines what starts anew or is not used.

    Args:
        network: of a task, around a network of :func:`load_config`.
        weights: of :func:`load_weights`.
        given_labels: of :func:`load_labels`.
        labels: of the task, in the order of its scores. If both are known and differ, the last
            layer of a head starts anew.
    """
    raise NotImplementedError
