"""Finetune: the network of a task, trained on its examples.

In: ``start``, ``labels``, ``prepare/train`` and, if there is one, ``prepare/dev``. Out:
``network.safetensors``, the best weights by the task's metric on the dev split (the last ones
without a dev split); ``network.json``, ``labels.json``; the history of the metrics; ``curve.png``.
"""

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from model.finetuning.kept_weights import KeptWeights
from model.finetuning.starting import unfit_head
from model.finetuning.task_networks import TaskNetwork
from orchestration import Context, Dataset, Stage, feeding
from orchestration.checkpoint_files import newest_whole
from orchestration.errors import StageError
from orchestration.manifest import File
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.storage.store import Store
from orchestration.training import files_of, fit
from pipelines.finetune import start
from pipelines.finetune.curve import draw_curve
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.expected_bytes import weight_bytes
from pipelines.finetune.finetune_task import (
    NETWORK_FILE,
    FinetuneJob,
    make_network,
)
from pipelines.finetune.labels import read_samples
from pipelines.finetune.params import FinetuneParams
from pipelines.finetune.start_source import BEST_FILE, NAMES_FILE
from pipelines.finetune.task import Task
from pipelines.readers.expected_memory import CUDA_BYTES, cached_bytes
from pipelines.training.checkpoints import load_network_state
from pipelines.training.history import complete_curve
from pipelines.training.loop import train

CURVE_FILE: Final = "curve.png"
_FILES: Final = (BEST_FILE, NETWORK_FILE, NAMES_FILE)
_WEIGHT_COPIES: Final = 8
"Weights, gradient, optimizer state, best weights, and the copies of a checkpoint."


def stage(
    params: FinetuneParams,
    task: Task,
    *,
    seed: int,
    started: Stage,
    labels: Stage,
    train: Stage,
    dev: Stage | None,
) -> Stage:
    """Return the stage ``finetune``.

    Args:
        params: the recipe's section.
        task: the section ``task``; its parameters reach this stage through ``labels``.
        seed: of the recipe.
        started: ``start``.
        labels: ``labels``.
        train: ``prepare/train``.
        dev: ``prepare/dev``, if the recipe has this split.
    """
    inputs = {"start": started, "labels": labels, "train": train}
    inputs |= {} if dev is None else {"dev": dev}
    assert isinstance(started.params, start.StartParams)
    return Stage(
        "finetune",
        lambda context: run(context, params, task),
        params,
        feeding(**inputs),
        seed=seed,
        resources=params.resources,
        requires=partial(requires, started.params, task),
        workers=partial(workers, params, started.params, train.name),
    )


def requires(started: start.StartParams, task: Task) -> str | None:
    """Return why the task cannot take the network, as far as a plan knows it."""
    config = start.configuration_of(started)
    return None if config is None else task.unfit_input(config)


def workers(
    params: FinetuneParams,
    started: start.StartParams,
    train: str,
    inputs: Mapping[str, Expected],
) -> Workers:
    """Predict a worker's memory in its machine."""
    weights = weight_bytes(started)
    held = _WEIGHT_COPIES * weights + (CUDA_BYTES if params.use_gpu else 0)
    groups = params.shuffle_window * -(-params.substreams // params.min_workers)
    held += cached_bytes(inputs, [train], groups, 64)
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.min_workers)


def run(context: Context, params: FinetuneParams, task: Task) -> None:
    """Train with Ray Train, keep the best weights, commit."""
    labels = context.input("labels")
    params = params.in_steps(int(read_samples(labels).sum()))
    started, splits = context.input("start"), context.stage.inputs
    dev = context.input("dev") if "dev" in splits else None
    job = FinetuneJob(task, params, context.seed, started, labels, context.input("train"), dev)
    if not params.steps:
        for line in context.run_task(write_start, context.folder, job):
            context.progress.remark(line)
        context.commit(files=_FILES, numbers={"num_steps": 0})
        return
    try:  # report a mismatch here, before any worker starts
        job.feed(job.builder(), 0, params.max_workers)
    except ValueError as error:
        raise StageError(f"finetune cannot start: {error}") from None
    if newest_whole(context.folder, read=False) is None:
        for line in context.run_task(started_lines, job):
            context.progress.remark(line)
    checkpoint = fit(context, params, train, job)
    curve = complete_curve(context, checkpoint)
    numbers = context.run_task(write_best, context.folder, checkpoint, job)
    with tempfile.TemporaryDirectory() as temporary:
        figure = Path(temporary) / CURVE_FILE
        draw_curve(curve.points(), task.metric, figure)
        context.log.artifact(figure)
        context.folder.write_file(CURVE_FILE, figure)
    numbers |= {"num_steps": params.steps, "num_skipped_steps": curve.num_skipped}
    files: list[str | File] = [*files_of(context, checkpoint), *curve.files, *_FILES, CURVE_FILE]
    context.commit(files=files, numbers=numbers)


def started_lines(job: FinetuneJob) -> list[str]:
    """Return in lines which heads start anew, and which of the given ones are not used."""
    return job.started_network(job.builder())[1]


def write_start(folder: Store, job: FinetuneJob) -> list[str]:
    """Write the weights to start from as the result; return the lines of :func:`started_lines`.

    Raises:
        StageError: they have a head of other sizes than a task's whose head is large: it would be
            evaluated with random values.
    """
    torch.manual_seed(job.seed)
    builder = job.builder()
    network, lines = job.started_network(builder)
    if job.task.is_dense and (wrong := unfit_head(network, start.load_weights(job.started))):
        raise StageError(
            "nothing is trained, and the given head has other sizes than the section task: "
            f"{wrong[0]} and {len(wrong) - 1} more; give the parameters of task that it was "
            "trained with (task.json of an export has them), or set finetune.epochs"
        )
    _write(folder, network, builder)
    return lines


def write_best(folder: Store, checkpoint: Store, job: FinetuneJob) -> dict[str, float]:
    """Write the best weights of a checkpoint; return their step and metric, if there is one."""
    import ray.train

    builder = job.builder()
    kept = KeptWeights(make_network(job.task, builder), job.params.ema_decay)
    files = ray.train.Checkpoint(checkpoint.native_path(), checkpoint.file_system())
    with files.as_directory() as local:
        load_network_state(Path(local), kept)
    is_evaluated = int(kept.best_step) > 0
    if job.dev is not None and not is_evaluated:
        raise StageError(
            f"finetune: {job.task.metric} of the dev split was no number in any evaluation; "
            "lower finetune.lr, or check the labels of data.dev"
        )
    _write(folder, kept.best if is_evaluated else kept.evaluated, builder)
    if not is_evaluated:
        return {}
    return {
        "best_step": int(kept.best_step),
        f"best_dev/{job.task.metric}": float(kept.best_value),
    }


def load_network(
    finetuned: Dataset, task: Task, builder: ExampleBuilder, device: torch.device
) -> TaskNetwork:
    """Return the network of a committed fine-tuning on a device, in evaluation mode."""
    network = make_network(task, builder)
    network.load_state_dict(load_file(finetuned.fetch(BEST_FILE)))
    return network.eval().to(device)


def _write(folder: Store, network: TaskNetwork, builder: ExampleBuilder) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / BEST_FILE
        save_file({n: t.contiguous() for n, t in network.state_dict().items()}, path)
        folder.write_file(BEST_FILE, path)
    configuration = json.dumps(builder.config.to_dict(), indent=1)
    folder.write_bytes(NETWORK_FILE, configuration.encode())
    folder.write_bytes(NAMES_FILE, json.dumps(list(builder.numbers), ensure_ascii=False).encode())
