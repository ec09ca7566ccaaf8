"""Evaluate: what the network has learned, measured on held-out rows beside baselines.

In: a checkpoint or given weights, the three token datasets, the text tokenizer. Out:
``report.json`` with the numbers, what they were computed from: tables of predictions and of
features (``evaluation/``), and a few samples with predictions to look at.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from torch import Tensor

from model import BEiT3, BEiT3Config
from model.network.layouts import listed
from model.network.starting import fit_start
from model.training.cost import parameters_by_part
from orchestration import Context, Stage, feeding
from orchestration.errors import PipelineError, RecipeError, StageError
from orchestration.params import EXTERNAL_FILE, OR_URI
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from pipelines.pretrain.checkpoints import NETWORK_FILE, load_network
from pipelines.pretrain.evaluation.numbers import evaluation_numbers
from pipelines.pretrain.evaluation.params import Params
from pipelines.pretrain.evaluation.predictor import Predictor
from pipelines.pretrain.evaluation.slices import evaluation_slices
from pipelines.pretrain.params import OR_FOLDER
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.pretrain import ROLES
from pipelines.pretrain.samples import FeedParams
from pipelines.pretrain.start_source import EXPORT, Folder, open_folder
from pipelines.readers.expected_memory import CUDA_BYTES, cached_bytes
from pipelines.readers.rows import CACHED_GROUPS

REPORT_FILE: Final = "report.json"


@dataclass(frozen=True)
class _Subject:
    """The network that is evaluated."""

    feed: FeedParams
    "How its samples are built."
    weight_bytes: int
    loader: Callable[[Context], Callable[[], BEiT3]]
    "Returns what loads it in a worker."
    is_given: bool = False
    "Whether the workflow measures it and does nothing else."


class GivenParams(Params):
    """The section, and the weights that are evaluated without a training of this workdir."""

    model: Annotated[str, EXTERNAL_FILE, OR_URI, OR_FOLDER]
    "Checkpoint or export."


def stage(
    params: Params,
    *,
    seed: int,
    checkpoint: Stage,
    images: Stage,
    texts: Stage,
    pairs: Stage,
    text_tokenizer: Stage,
) -> Stage:
    """Return the stage ``evaluate`` of a pretraining.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        checkpoint: ``pretrain``, whose parameters say how samples are built.
        images: ``image_tokens``.
        texts: ``text_tokens``.
        pairs: ``pair_tokens``.
        text_tokenizer: ``text_tokenizer``.
    """
    train = checkpoint.params
    assert isinstance(train, PretrainParams)

    def loader(context: Context) -> Callable[[], BEiT3]:
        return partial(load_network, context.input("checkpoint"))

    subject = _Subject(train.feed_params(), train.network.weight_bytes(), loader)
    inputs = {"images": images, "texts": texts, "pairs": pairs, "text_tokenizer": text_tokenizer}
    return _stage(params, seed, subject, {"checkpoint": checkpoint, **inputs})


def stage_of_given(
    params: GivenParams,
    *,
    seed: int,
    config: BEiT3Config,
    feed: FeedParams,
    images: Stage,
    texts: Stage,
    pairs: Stage,
    text_tokenizer: Stage,
) -> Stage:
    """Return the stage ``evaluate`` of given weights.

    Args:
        params: the recipe's section and the weights.
        seed: of the recipe.
        config: of the network.
        feed: how samples are built.
        images: ``image_tokens``.
        texts: ``text_tokens``.
        pairs: ``pair_tokens``.
        text_tokenizer: ``text_tokenizer``.
    """

    def loader(context: Context) -> Callable[[], BEiT3]:
        return partial(given_network, params.model)

    weight_bytes = 4 * sum(parameters_by_part(config).values())
    inputs = {"images": images, "texts": texts, "pairs": pairs, "text_tokenizer": text_tokenizer}
    subject = _Subject(feed, weight_bytes, loader, is_given=True)
    return _stage(params, seed, subject, inputs, partial(_unusable, params.model))


def given_network(location: str) -> BEiT3:
    """Return the network of a checkpoint or an export, in evaluation mode.

    Raises:
        RecipeError: there is none, it is damaged, or it is none of a pretraining.
    """
    folder = open_folder(location)
    network = BEiT3(folder.config())
    network.load_state_dict(_fitted(folder, Folder.weights))
    return network.eval()


def _unusable(location: str) -> str | None:
    """Return why weights cannot be evaluated, as far as it is known before the stage runs.

    Names and shapes are compared; of an export on this machine the values, too.
    """
    try:
        folder = open_folder(location)
        is_read = folder.kind == EXPORT and folder.store.is_local
        _fitted(folder, Folder.weights if is_read else Folder.outline)
    except PipelineError as error:
        return f"model: {error}"
    return None


def _fitted(folder: Folder, read: Callable[[Folder], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the parameters of a pretrained network, as its configuration has them.

    Raises:
        RecipeError: the weights cannot be read, are not finite, or do not fit.
    """
    try:
        fitted, report = fit_start(read(folder), folder.config())
    except (ValueError, OSError) as error:
        raise RecipeError(f"{folder.store.uri}: {error}") from None
    if report.adapted:
        raise RecipeError(f"{folder.store.uri}: its {NETWORK_FILE} is another network's")
    if report.fresh:
        raise RecipeError(
            f"{folder.store.uri}: it has no {listed(report.fresh)}, which a pretraining gives; "
            "name the workdir, a checkpoint or the export of a pretraining"
        )
    return fitted


def _stage(
    params: Params,
    seed: int,
    subject: _Subject,
    inputs: Mapping[str, Stage],
    requires: Callable[[], str | None] = lambda: None,
) -> Stage:
    return Stage(
        "evaluate",
        lambda context: run(context, params, subject),
        params,
        feeding(**inputs),
        seed=seed,
        version=5,
        requires=requires,
        resources=params.resources,
        workers=partial(_workers, params, subject, [inputs[r].name for r in ("images", "pairs")]),
    )


def _workers(
    params: Params, subject: _Subject, tables: Sequence[str], inputs: Mapping[str, Expected]
) -> Workers:
    """Predict an actor's memory: two networks, and row groups of images and pairs."""
    network = 2 * subject.weight_bytes + (CUDA_BYTES if params.gpus_per_actor else 0)
    held = network + cached_bytes(inputs, tables, CACHED_GROUPS)
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.num_actors)


def run(context: Context, params: Params, subject: _Subject) -> None:
    """Predict slice by slice in actors that hold the network, then sum up.

    Raises:
        StageError: given weights are measured on no row. A pretraining is told so, and goes on.
    """
    inputs = {stream: context.input(role) for stream, role in ROLES.items()}
    slices = evaluation_slices(inputs, params, context.seed)
    context.map_slices_with_actors(
        slices.all,
        partial(
            Predictor,
            params,
            subject.feed,
            context.seed,
            subject.loader(context),
            context.input("text_tokenizer"),
            inputs,
        ),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        num_gpus=params.gpus_per_actor,
    )
    numbers = evaluation_numbers(slices, context.read_parts, params, context.seed)
    if not numbers:
        nothing = "no row was held out, so nothing is measured; give more rows, or hold out more"
        if subject.is_given:
            raise StageError(f"evaluate: {nothing}; the stages above say what became of the rows")
        context.progress.remark(nothing)
    report = json.dumps(numbers, indent=1, sort_keys=True).encode()
    context.folder.write_bytes(REPORT_FILE, report)
    context.log.artifact(context.folder.fetch(REPORT_FILE))
    context.commit(slices.all, files=[REPORT_FILE], numbers=numbers)
