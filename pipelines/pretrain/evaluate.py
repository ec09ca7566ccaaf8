"""Evaluate: what the network has learned, measured on held-out rows beside baselines.

In: a checkpoint, the three token datasets, the text tokenizer. Out: ``report.json`` with the
numbers, and what they were computed from: tables of predictions and of features
(``evaluation/``).
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from orchestration import Context, Stage, feeding
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.resources import Resources
from pipelines.pretrain.checkpoints import load_network
from pipelines.pretrain.evaluation.numbers import evaluation_numbers
from pipelines.pretrain.evaluation.params import Params
from pipelines.pretrain.evaluation.predictor import Predictor
from pipelines.pretrain.evaluation.slices import evaluation_slices
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.pretrain import ROLES
from pipelines.readers.expected_memory import CUDA_BYTES, cached_bytes
from pipelines.readers.rows import CACHED_GROUPS

REPORT_FILE: Final = "report.json"


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
    """Return the stage ``evaluate``.

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
    return Stage(
        "evaluate",
        lambda context: run(context, params, train),
        params,
        feeding(
            checkpoint=checkpoint,
            images=images,
            texts=texts,
            pairs=pairs,
            text_tokenizer=text_tokenizer,
        ),
        seed=seed,
        version=4,
        resources=Resources(params.cpus_per_actor, params.gpus_per_actor),
        workers=partial(workers, params, train, (images.name, pairs.name)),
    )


def workers(
    params: Params, train: PretrainParams, tables: Sequence[str], inputs: Mapping[str, Expected]
) -> Workers:
    """Predict an actor's memory: the network, and row groups of images and pairs."""
    network = train.network.weight_bytes() + (CUDA_BYTES if params.gpus_per_actor else 0)
    held = network + cached_bytes(inputs, tables, CACHED_GROUPS)
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.num_actors)


def run(context: Context, params: Params, train: PretrainParams) -> None:
    """Predict slice by slice in actors that hold the network, then sum up."""
    inputs = {stream: context.input(role) for stream, role in ROLES.items()}
    slices = evaluation_slices(inputs, params, context.seed)
    context.map_slices_with_actors(
        slices.all,
        partial(
            Predictor,
            params,
            train.feed_params(),
            context.seed,
            partial(load_network, context.input("checkpoint")),
            context.input("text_tokenizer"),
            inputs,
        ),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        num_gpus=params.gpus_per_actor,
    )
    numbers = evaluation_numbers(slices, context.read_parts, params, context.seed)
    report = json.dumps(numbers, indent=1, sort_keys=True).encode()
    context.folder.write_bytes(REPORT_FILE, report)
    context.log.artifact(context.folder.fetch(REPORT_FILE))
    context.commit(slices.all, files=[REPORT_FILE], numbers=numbers)
