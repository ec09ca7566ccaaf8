"""The fine-tuning of a task's network: what the training loop runs for the stage ``finetune``."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from model import BEiT3
from model.finetuning.kept_weights import KeptWeights
from model.finetuning.layer_decay import parameter_groups
from model.finetuning.step import finetune_step
from model.finetuning.task_networks import TaskNetwork
from model.training import randomness
from model.training.compiling import compile_blocks
from model.training.cost import SampleShape, forward_flops
from model.training.parallel import broadcast_weights
from model.training.spikes import Spikes
from model.training.useful_work import Work
from orchestration import Dataset
from orchestration.session import Session
from pipelines.finetune import start
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.feed import TaskFeed
from pipelines.finetune.labels import read_labels, read_samples
from pipelines.finetune.params import FinetuneParams
from pipelines.finetune.predicting import Evaluator, Predictor
from pipelines.finetune.task import Task
from pipelines.finetune.texts import TextEncoder
from pipelines.training.loop import StepOutcome

NETWORK_FILE: Final = "network.json"
DEV: Final = "dev/"
"Prefix of the metrics of the dev split."
_BACKWARD: Final = 2
"Operations of a backward for each one of the forward."


@dataclass(frozen=True)
class FinetuneJob:
    """A fine-tuning, as it is sent to each worker."""

    task: Task
    params: FinetuneParams
    "With the number of steps."
    seed: int
    started: Dataset
    "Output of the stage ``start``."
    labels: Dataset
    "Output of the stage ``labels``."
    train: Dataset
    dev: Dataset | None

    def make_task(self, session: Session) -> "FinetuneTask":
        """Build the task on a worker."""
        return FinetuneTask(self, session)

    def builder(self) -> ExampleBuilder:
        """Return what builds the network's input."""
        return make_builder(self.task, self.started, self.labels)

    def started_network(self, builder: ExampleBuilder) -> tuple[TaskNetwork, list[str]]:
        """Return the task's network with given weights, and in lines which heads start anew."""
        network = make_network(self.task, builder)
        lines = start.apply(
            network,
            start.load_weights(self.started),
            given_labels=start.load_labels(self.started),
            labels=list(builder.numbers),
        )
        return network, lines

    def feed(
        self, builder: ExampleBuilder, rank: int, num_workers: int, num_threads: int = 1
    ) -> TaskFeed:
        """Return the feed of one worker.

        Raises:
            ValueError: batch, substreams, workers and examples do not fit together.
        """
        params = self.params
        build = builder.training(
            params.augment, params.drop_path, int(randomness.bits(self.seed, 20))
        )
        return TaskFeed(
            self.train,
            builder.columns,
            build,
            read_samples(self.labels),
            batch_size=params.batch_size,
            micro_batch=params.micro_batch,
            num_substreams=params.substreams,
            shuffle_window=params.shuffle_window,
            seed=self.seed,
            rank=rank,
            num_workers=num_workers,
            num_threads=num_threads,
        )


def make_builder(task: Task, started: Dataset, labels: Dataset) -> ExampleBuilder:
    """Return what builds the input of a task's network from the outputs of two stages."""
    config = replace(start.load_config(started), final_norm=task.final_norm)
    longest = min(config.max_text_length, task.max_text_tokens or config.max_text_length)
    texts = TextEncoder(start.load_text_tokenizer(started), longest)
    return ExampleBuilder(task, config, texts, read_labels(labels))


def make_network(task: Task, builder: ExampleBuilder) -> TaskNetwork:
    """Return a task's network with new weights."""
    return task.network(BEiT3(builder.config), list(builder.numbers), builder.texts)


class FinetuneTask:
    """Training a task's network on one worker."""

    spikes: Spikes | None = None

    def __init__(self, job: FinetuneJob, session: Session) -> None:
        params = job.params
        self.job, self.device = job, session.device
        self.builder = job.builder()
        network = (
            make_network(job.task, self.builder)
            if session.has_checkpoint()
            else job.started_network(self.builder)[0]
        )
        network.to(session.device)
        network.network.activation_checkpointing = params.activation_checkpointing
        broadcast_weights(network)
        self.network = KeptWeights(network, params.ema_decay)
        if params.compile:
            compile_blocks(network.network)
        groups = parameter_groups(
            network.named_parameters(),
            num_layers=self.builder.config.depth,
            layer_decay=params.layer_decay,
            weight_decay=params.weight_decay,
            head_lr_factor=params.head_lr_factor,
        )
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, lr=0.0, betas=params.betas, eps=params.eps, fused=True
        )
        workers = session.rank, session.num_workers
        self.feed = job.feed(self.builder, *workers, session.num_threads)
        self.evaluator: Evaluator | None = None
        if job.dev is not None:
            labels = list(self.builder.numbers)
            predictor = Predictor(job.task, self.builder, labels, job.dev, params.micro_batch)
            self.evaluator = Evaluator(predictor, *workers)

    def batches(self, step: int) -> list[TaskBatch]:
        """Return this worker's micro-batches, in pinned memory where there is a GPU."""
        batches = self.feed.step(step)
        return [batch.pinned() for batch in batches] if self.device.type == "cuda" else batches

    def step(
        self, batches: list[TaskBatch], step: int, lr: float, autocast: torch.autocast
    ) -> StepOutcome:
        """Take one step; after some, evaluate the dev split and keep the best weights."""
        job, network = self.job, self.network.network
        network.train()
        moved = [batch.to(self.device) for batch in batches]
        result = finetune_step(
            network,
            self.optimizer,
            lambda: job.task.backward(network, moved, job.params.batch_size, autocast),
            lr=lr,
            num_examples=job.params.batch_size,
            max_grad_norm=job.params.max_grad_norm,
        )
        if not result.skipped:
            self.network.update_average()
        metrics = {_metric(name): value for name, value in result.means.items()}
        metrics["grad_norm"] = result.grad_norm
        began = time.monotonic()
        if self.evaluator is not None and job.params.is_evaluated_after(step + 1):
            found = self.evaluator(self.network.evaluated, autocast)
            metrics |= {f"{DEV}{name}": value for name, value in found.items()}
            self.network.keep_if_best(found[job.task.metric], step + 1)
        spent = time.monotonic() - began
        return StepOutcome(metrics, skipped=result.skipped, evaluation_s=spent)

    def work(self, batches: list[TaskBatch]) -> Work:
        """Return the useful work of a step, at the lengths to which texts are padded."""
        config, task = self.builder.config, self.job.task
        num_images = 1 + config.num_patches if task.num_images else 0
        mine = tokens = flops = 0
        for batch in batches:
            length = 0 if batch.text_ids is None else batch.text_ids.shape[1]
            apart = task.by_text and task.num_passes > 1
            shapes = [SampleShape(num_images, 0, 0, 0), SampleShape(0, length, 0, 0)]
            if not apart:
                shapes = [SampleShape(num_images, length, 0, 0)] * task.num_passes
            flops += len(batch) * sum(forward_flops(config, shape) for shape in shapes)
            tokens += len(batch) * sum(shape.image_length + shape.text_length for shape in shapes)
            mine += len(batch)
        size = self.job.params.batch_size
        return Work(size, tokens * size / max(mine, 1), float((1 + _BACKWARD) * flops))

    def slow_feed(self, seconds: float) -> str:
        """Return what makes the feed faster."""
        has_operations = self.job.params.augment.rand_augment != "none"
        lighter = ["finetune.augment.rand_augment=none"] if has_operations else []
        return self.feed.use.remedy(seconds, lighter)

    def write_files(self, folder: Path) -> None:
        """Write the network's configuration."""
        (folder / NETWORK_FILE).write_text(json.dumps(self.builder.config.to_dict(), indent=1))

    def read_files(self, folder: Path) -> None:
        """Read nothing: the state of the task is in network and optimizer."""


def _metric(name: str) -> str:
    return name if name == "loss" else f"train/{name}"
