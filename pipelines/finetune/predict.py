"""Predict: what the fine-tuned network says of each example of a split.

In: ``finetune``, ``start``, ``labels``, ``prepare/<split>``. Out: ``data``, a row per example (see
``dataprep.schemas.PREDICTIONS``).
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from dataprep.schemas import PREDICTIONS
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.slices import row_slices
from pipelines.finetune import start
from pipelines.finetune.expected_bytes import weight_bytes
from pipelines.finetune.finetune import load_network
from pipelines.finetune.finetune_task import make_builder
from pipelines.finetune.params import PredictParams
from pipelines.finetune.predicting import Predictor
from pipelines.finetune.task import Task
from pipelines.readers.expected_memory import CUDA_BYTES, cached_bytes


def stage(
    params: PredictParams,
    task: Task,
    *,
    split: str,
    finetuned: Stage,
    started: Stage,
    labels: Stage,
    examples: Stage,
) -> Stage:
    """Return the stage ``predict/<split>``.

    Args:
        params: the recipe's section.
        task: the section ``task``.
        split: name of the split.
        finetuned: ``finetune``.
        started: ``start``.
        labels: ``labels``.
        examples: ``prepare/<split>``.
    """
    assert isinstance(started.params, start.StartParams)
    return Stage(
        f"predict/{split}",
        lambda context: run(context, params, task),
        params,
        feeding(finetune=finetuned, start=started, labels=labels, examples=examples),
        resources=params.resources,
        workers=partial(workers, params, started.params, examples.name),
        version=3,
    )


def workers(
    params: PredictParams, started: start.StartParams, examples: str, inputs: Mapping[str, Expected]
) -> Workers:
    """Predict an actor's memory: the network and some row groups."""
    held = 2 * weight_bytes(started) + (CUDA_BYTES if params.gpus_per_actor else 0)
    held += cached_bytes(inputs, [examples], 4, 64)
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.num_actors)


def run(context: Context, params: PredictParams, task: Task) -> None:
    """Predict slice by slice in actors that hold the network."""
    datasets = {role: context.input(role) for role in context.stage.inputs}
    slices = row_slices(datasets["examples"], params.slice_rows)
    context.map_slices_with_actors(
        slices,
        partial(SlicePredictor, params, task, datasets),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        num_gpus=params.gpus_per_actor,
    )
    context.commit(slices, schemas={"data": PREDICTIONS})


class SlicePredictor:
    """Predicts for the rows of a slice."""

    def __init__(self, params: PredictParams, task: Task, datasets: Mapping[str, Dataset]) -> None:
        torch.set_num_threads(params.cpus_per_actor)
        self.device = torch.device("cuda" if params.gpus_per_actor else "cpu")
        builder = make_builder(task, datasets["start"], datasets["labels"])
        self.network = load_network(datasets["finetune"], task, builder, self.device)
        labels = list(builder.numbers)
        self.predict = Predictor(task, builder, labels, datasets["examples"], params.batch_size)
        self.autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=params.precision == "bf16"
        )

    def __call__(self, slice_: Slice) -> Output:
        """Process one slice."""
        numbers = np.arange(slice_.payload["start"], slice_.payload["stop"])
        rows = list(self.predict(self.network, numbers, self.autocast))
        return Output(len(numbers), {"data": pa.Table.from_pylist(rows, PREDICTIONS)})
