"""Starting a pretraining from given weights (``train.start_from``): what fits, and the copy.

A plan compares names and shapes as far as they can be known before. The stage reads the weights
once, compares them and both tokenizers, and writes what the network takes into its own folder,
from which every worker loads it before the network is distributed. A training that has a
checkpoint never reads them again. Step, schedule and optimizer state begin anew.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from safetensors.torch import save_file
from torch import Tensor

from model import BEiT3Config
from model.network.layouts import FormMismatch
from model.network.starting import StartReport, fit_start
from orchestration import Context, Dataset
from orchestration.checkpoint_files import newest_whole
from orchestration.errors import PipelineError, RecipeError
from orchestration.masking import masked
from orchestration.params import is_uri
from orchestration.storage.store import Store
from pipelines.pretrain.params import Params
from pipelines.pretrain.start_source import tokenizer_files
from pipelines.pretrain.start_tokenizers import (
    KEY,
    TOKENIZERS,
    TokenizerParams,
    contradictions,
    given_file,
    given_key,
    is_taken,
    rows_of,
)
from pipelines.pretrain.start_weights import Weights, outline, read

START_FOLDER: Final = "start"
WEIGHTS_FILE: Final = f"{START_FOLDER}/weights.safetensors"
REPORT_FILE: Final = "start.json"
_HEAD_WIDTH: Final = 64
"Width of an attention head in every released network."


def requires(params: Params, tokenizers: TokenizerParams) -> str | None:
    """Return why the weights cannot be used, as far as it is known before the stage runs."""
    if params.start_from is None:
        return None
    try:
        weights = outline(params.start_from)
        if weights is None:
            return None
        _fitted(weights, params, None)
        own = {
            stage: Path(given)
            for stage in TOKENIZERS
            if (given := given_file(tokenizers, stage)) and not is_uri(given)
        }
        wrong = list(contradictions(weights, params, tokenizers, own))
    except (PipelineError, ValueError, OSError) as error:
        return f"{KEY}: {error}"
    return f"{KEY}: {'; '.join(wrong)}" if wrong else None


def plan_lines(params: Params, tokenizers: TokenizerParams) -> Iterator[str]:
    """Yield what the network takes from the weights, as far as it is known before."""
    if params.start_from is None:
        return
    try:
        weights = outline(params.start_from)
        report = None if weights is None else _fitted(weights, params, None)[1]
    except (PipelineError, ValueError, OSError):
        return  # reported by ``requires``
    if weights is None or report is None:
        yield f"{KEY}: {masked(params.start_from)}: names are compared after it is fetched"
        return
    for line in (*report.lines(), *_remarks(weights, params, tokenizers)):
        yield f"{KEY}: {line}"
    for stage, theirs in tokenizer_files(weights.folder):
        if theirs is not None and not given_key(tokenizers, stage):
            each = TOKENIZERS[stage]
            yield (
                f"{KEY}: {stage} must give the {each.part} of the weights; if it would train "
                f"another one, set {stage}.{each.key}={theirs}"
            )


def prepare(
    context: Context,
    params: Params,
    config: BEiT3Config,
    tokenizers: TokenizerParams,
    outputs: Mapping[str, Dataset],
) -> None:
    """Write what the network takes into the stage's folder, if it may still be needed.

    Raises:
        StageError: the weights cannot be used, or changed since the workflow was planned.
    """
    folder = context.folder
    if params.start_from is None or folder.exists(WEIGHTS_FILE):
        return
    if newest_whole(folder) is not None:
        return
    local = context.local_files(params)
    for line in context.run_task(write_start, folder, local, config, tokenizers, outputs):
        text = f"{context.stage.name}: {KEY}: {line}"
        context.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


def report_files(context: Context) -> list[str]:
    """Return the name of the report, to commit with the stage, if there is one."""
    return [REPORT_FILE] if context.folder.exists(REPORT_FILE) else []


def write_start(
    folder: Store,
    params: Params,
    config: BEiT3Config,
    tokenizers: TokenizerParams,
    outputs: Mapping[str, Dataset],
) -> list[str]:
    """Read the weights, write what the network takes and a report; return the report's lines.

    Args:
        folder: folder of the stage.
        params: of the stage, with a local path in place of a file's URI.
        config: of the network.
        tokenizers: sections of both tokenizers.
        outputs: outputs of the tokenizers by stage; none of the image tokenizer for given codes.

    Raises:
        RecipeError: the weights cannot be used.
    """
    assert params.start_from is not None
    try:
        weights = read(params.start_from)
        own = {stage: made.fetch(TOKENIZERS[stage].file) for stage, made in outputs.items()}
        if wrong := list(contradictions(weights, params, tokenizers, own)):
            raise RecipeError("; ".join(wrong))
        fitted, report = _fitted(weights, params, config)
    except (PipelineError, ValueError, OSError) as error:
        raise RecipeError(f"{KEY}: {error}") from None
    remarks = list(_remarks(weights, params, tokenizers))
    lines = [*report.lines(), *remarks]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "weights"
        save_file({name: tensor.contiguous() for name, tensor in fitted.items()}, path)
        described = asdict(report) | {"remarks": remarks}
        folder.write_bytes(REPORT_FILE, json.dumps(described, indent=1).encode())
        folder.write_file(WEIGHTS_FILE, path)
    return lines


def _fitted(
    weights: Weights, params: Params, config: BEiT3Config | None
) -> tuple[dict[str, Tensor], StartReport]:
    """Compare weights with the network; a plan does not know its vocabulary and its codes.

    Raises:
        RecipeError: they are not those of a network of this form, or cannot be taken.
    """
    if config is None:
        config = params.network.config(
            vocab_size=rows_of(weights, "text_tokenizer"),
            num_codes=rows_of(weights, "image_tokenizer"),
        )
    if weights.config is not None and weights.config.num_heads != config.num_heads:
        raise RecipeError(
            f"the weights have {weights.config.num_heads} attention heads, the network has "
            f"{config.num_heads}; set train.network.num_heads={weights.config.num_heads}"
        )
    try:
        return fit_start(weights.state, config, params.start_fresh)
    except FormMismatch as error:
        raise RecipeError(
            f"{error}; the recipe's train.network must have the form of the weights"
        ) from None
    except ValueError as error:
        raise RecipeError(str(error)) from None


def _remarks(weights: Weights, params: Params, tokenizers: TokenizerParams) -> Iterator[str]:
    """Yield what differs without a mismatch of names and shapes, and what cannot be known."""
    config = params.network.config(vocab_size=1, num_codes=1)
    for stage, theirs in tokenizer_files(weights.folder):
        if theirs is None and is_taken(weights, params, stage):
            each = TOKENIZERS[stage]
            key = given_key(tokenizers, stage) or f"{stage}.{each.key}"
            yield f"{key} is taken to be the {each.part} of the weights"
    if weights.config is None:
        if config.width != _HEAD_WIDTH * config.num_heads:
            yield (
                f"the weights do not say their number of attention heads; {config.num_heads} are "
                f"taken, released networks have {config.width // _HEAD_WIDTH or 1}"
            )
        return
    for name in ("pixel_mean", "pixel_std"):
        theirs_, ours = getattr(weights.config, name), getattr(config, name)
        if theirs_ != ours:
            yield f"the weights were trained with {name} = {theirs_}, the recipe's is {ours}"
