"""Start: given weights → those of the task's input size, with their configuration and vocabulary.

Out: ``weights.safetensors`` (the encoder as ``network.…`` and the heads of tasks by their released
names; nothing if the network starts from scratch), ``network.json``, ``spm.model``, ``start.json``
(what was done) and, of an earlier fine-tuning, ``labels.json``.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from safetensors.torch import load_file
from torch import Tensor

from model import BEiT3Config
from model.finetuning.starting import load_given
from model.finetuning.task_networks import TaskNetwork
from model.network.pretrained import save_state
from model.training.cost import parameters_by_part
from orchestration import Context, Dataset, Stage
from orchestration.errors import PipelineError, RecipeError
from orchestration.masking import masked
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.storage.store import Store
from pipelines.finetune.start_params import StartParams
from pipelines.finetune.start_source import NAMES_FILE, labels_of, open_folder
from pipelines.finetune.start_weights import configuration, fit_weights, vocabulary_of
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.start_weights import outline, read
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

WEIGHTS_FILE: Final = "weights.safetensors"
REPORT_FILE: Final = "start.json"


def stage(params: StartParams) -> Stage:
    """Return the stage ``start``."""
    return Stage(
        "start",
        lambda context: run(context, params),
        params,
        requires=partial(requires, params),
        workers=partial(workers, params),
    )


def workers(params: StartParams, inputs: Mapping[str, Expected]) -> Workers | None:
    """Predict the memory of the one worker: the weights as read, as fitted and as written."""
    config = configuration_of(params)
    if config is None:
        return None
    weight_bytes = 4 * sum(parameters_by_part(config).values())
    return Workers(WORKER_BYTES + TORCH_BYTES + 3 * weight_bytes, 1)


def requires(params: StartParams) -> str | None:
    """Return why the weights or the vocabulary cannot be used, as far as a plan knows them."""
    wrong: list[str] = []
    weights = config = None
    try:
        weights = outline(params.start_from, open_folder)
        if weights is not None:
            config = fit_weights(weights, params).config
            labels_of(weights.folder)
    except (PipelineError, ValueError, OSError) as error:
        wrong.append(f"start_from: {error}")
    try:
        if weights is not None or not wrong or params.text_tokenizer is not None:
            vocabulary_of(weights, config, params)
    except (PipelineError, ValueError, OSError) as error:
        wrong.append(f"text_tokenizer: {error}")
    return "; ".join(wrong) or None


def configuration_of(params: StartParams) -> BEiT3Config | None:
    """Return the configuration of the network; None if a plan cannot know it.

    It cannot for a torch file that must be fetched first, nor for what has no whole network.
    """
    try:
        weights = outline(params.start_from, open_folder)
        return None if weights is None else configuration(weights, params)
    except (PipelineError, ValueError, OSError):
        return None


def plan_lines(params: StartParams) -> Iterator[str]:
    """Yield what is done with the weights, as far as a plan knows them."""
    try:
        weights = outline(params.start_from, open_folder)
        lines = [] if weights is None else list(fit_weights(weights, params).lines())
    except (PipelineError, ValueError, OSError):
        return  # reported by ``requires``
    if weights is None:
        lines = [f"{masked(params.start_from)}: names are compared after it is fetched"]
    for line in lines:
        yield f"start_from: {line}"


def run(context: Context, params: StartParams) -> None:
    """Read the weights and write what the other stages take, as one task."""
    local = context.local_files(params)
    names, lines = context.run_task(write_start, context.folder, local)
    for line in lines:
        context.progress.console.print(
            f"{context.stage.name}: {line}", highlight=False, markup=False, soft_wrap=True
        )
    context.commit(files=names)


def write_start(folder: Store, params: StartParams) -> tuple[list[str], list[str]]:
    """Write the output of the stage; return (names of its files, what was done in lines).

    Args:
        folder: folder of the stage.
        params: of the stage, with a local path in place of a file's URI.

    Raises:
        RecipeError: weights or vocabulary cannot be used.
    """
    try:
        weights = read(params.start_from, open_folder)
        fitted = fit_weights(weights, params)
        labels = labels_of(weights.folder)
    except (PipelineError, ValueError, OSError) as error:
        raise RecipeError(f"start_from: {error}") from None
    try:
        vocabulary = Path(vocabulary_of(weights, fitted.config, params))
    except (PipelineError, ValueError, OSError) as error:
        raise RecipeError(f"text_tokenizer: {error}") from None
    lines = list(fitted.lines())
    report = {**asdict(fitted.report), "heads": fitted.heads, "lines": lines}
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        save_state(fitted.weights, made / WEIGHTS_FILE)
        shutil.copyfile(vocabulary, made / MODEL_FILE)
        (made / NETWORK_FILE).write_text(json.dumps(fitted.config.to_dict(), indent=1))
        (made / REPORT_FILE).write_text(json.dumps(report, indent=1))
        if labels is not None and fitted.heads:
            (made / NAMES_FILE).write_text(json.dumps(labels))
        names = sorted(path.name for path in made.iterdir())
        for name in names:
            folder.write_file(name, made / name)
    return names, lines


def load_config(dataset: Dataset) -> BEiT3Config:
    """Return the configuration of the network that the output of ``start`` fits."""
    return BEiT3Config.from_json(dataset.fetch(NETWORK_FILE).read_text())


def load_text_tokenizer(dataset: Dataset) -> TextTokenizer:
    """Return the text tokenizer in the output of ``start``."""
    return TextTokenizer.load(dataset.fetch(MODEL_FILE))


def load_weights(dataset: Dataset) -> dict[str, Tensor]:
    """Return the weights in the output of ``start``; none if the network starts from scratch."""
    return dict(load_file(dataset.fetch(WEIGHTS_FILE)))


def load_labels(dataset: Dataset) -> list[str] | None:
    """Return the labels that the given head was trained for, in its order, if they are known."""
    if not any(file.path == NAMES_FILE for file in dataset.manifest.files):
        return None
    return [str(label) for label in json.loads(dataset.fetch(NAMES_FILE).read_text())]


def apply(
    network: TaskNetwork,
    weights: Mapping[str, Tensor],
    *,
    given_labels: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> list[str]:
    """Load the encoder and the heads that fit; return in lines what starts anew or is not used.

    Args:
        network: of a task, around a network of :func:`load_config`, with or without final norm.
        weights: of :func:`load_weights`.
        given_labels: of :func:`load_labels`.
        labels: of the task, in the order of its scores.

    Raises:
        StartMismatch: the encoder is not that of the weights; nothing was loaded.
    """
    return load_given(network, weights, given_labels=given_labels, labels=labels)
