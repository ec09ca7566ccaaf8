"""Given weights fitted to the input size of a task, and whether a vocabulary is theirs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from model import BEiT3Config
from model.finetuning.released import ENCODER_PREFIX
from model.finetuning.starting import fit_encoder
from model.network.deduced_config import config_of
from model.network.layouts import StartMismatch, listed
from model.network.starting import StartReport
from orchestration.errors import RecipeError
from orchestration.masking import masked
from orchestration.params import is_uri
from pipelines.finetune.start_params import StartParams
from pipelines.pretrain.start_source import sha256_of
from pipelines.pretrain.start_weights import Weights
from pipelines.tokens.text_tokenizer import load_given

_IMAGENET: Final = "fc_norm.weight"
"In the head of the released classifiers, which were trained with ImageNet's normalization."


@dataclass(frozen=True)
class Fitted:
    """What a network takes from given weights."""

    weights: Mapping[str, Tensor]
    "The encoder as ``network.…`` and heads by released name; none with ``fresh_weights``."
    config: BEiT3Config
    "Of the network at the input size of the task."
    report: StartReport
    remarks: Sequence[str]
    "What the weights do not say, and what differs without a mismatch of names and shapes."
    heads: Sequence[str]
    "Names of the parameters of heads of tasks that the weights have."

    def lines(self) -> Iterator[str]:
        """Yield in words what is done."""
        if not self.weights:
            yield "weights are left out (fresh_weights): configuration and vocabulary are kept"
        else:
            yield from self.report.lines()
            if self.heads:
                yield f"heads of tasks, for a task that has them: {listed(self.heads)}"
        yield from self.remarks


def fit_weights(weights: Weights, params: StartParams) -> Fitted:
    """Fit weights to the input size of the task.

    Raises:
        RecipeError: the recipe's sizes do not fit together.
        StartMismatch: the weights are not those of a network of this form.
    """
    config = configuration(weights, params)
    fitted, report = fit_encoder(weights.state, config)
    heads = [name for name in fitted if not name.startswith(ENCODER_PREFIX)]
    remarks = list(_remarks(weights, params, config, heads))
    return Fitted({} if params.fresh_weights else fitted, config, report, remarks, heads)


def configuration(weights: Weights, params: StartParams) -> BEiT3Config:
    """Return the configuration of the weights at the input size of the task.

    Raises:
        RecipeError: the recipe's sizes do not fit together.
        StartMismatch: the weights are not those of a whole network.
    """
    try:
        if weights.config is None:
            return config_of(weights.state, **params.changes())
        return replace(weights.config, **params.changes())
    except StartMismatch:
        raise
    except ValueError as error:
        raise RecipeError(f"network: {error}") from None


def vocabulary_of(weights: Weights | None, config: BEiT3Config | None, params: StartParams) -> str:
    """Return the path or URI of the vocabulary of given weights.

    Raises:
        RecipeError: it is not given, or is not that of the weights.
        ValueError: its file cannot be used.
    """
    folder = None if weights is None else weights.folder
    theirs = None if folder is None else folder.text_tokenizer()
    given = params.text_tokenizer
    if given is None and theirs is None:
        raise RecipeError(
            f"{masked(params.start_from)} does not come with its vocabulary; set text_tokenizer to "
            "the SentencePiece model that the weights were trained with"
        )
    location = given or str(theirs)
    num_rows = load_given(location).num_rows
    if given and theirs and not is_uri(given) and sha256_of(Path(given)) != sha256_of(theirs):
        raise RecipeError(
            f"{given} is another vocabulary than that of the weights, {theirs}; leave "
            "text_tokenizer out"
        )
    if config is not None and num_rows != config.vocab_size:
        raise RecipeError(
            f"{masked(location)} needs {num_rows} rows of the token embedding, the weights have "
            f"{config.vocab_size}; set text_tokenizer to the vocabulary of the weights"
        )
    return location


def _remarks(
    weights: Weights, params: StartParams, config: BEiT3Config, heads: Sequence[str]
) -> Iterator[str]:
    """Yield what weights do not say, and what differs without a mismatch of names and shapes."""
    if weights.config is not None:
        for name in ("pixel_mean", "pixel_std"):
            theirs, ours = getattr(weights.config, name), getattr(config, name)
            if theirs != ours:
                yield f"the weights were trained with {name} = {theirs}, the recipe's is {ours}"
        return
    yield f"the weights do not say their number of attention heads: {config.num_heads} are taken"
    if params.pixel_mean is None or params.pixel_std is None:
        yield (
            f"the weights do not say their normalization: mean {config.pixel_mean} and standard "
            f"deviation {config.pixel_std} are taken"
        )
        if _IMAGENET in heads:
            yield (
                "released classifiers of ImageNet have mean (0.485, 0.456, 0.406) and standard "
                "deviation (0.229, 0.224, 0.225): set network.pixel_mean and network.pixel_std"
            )
