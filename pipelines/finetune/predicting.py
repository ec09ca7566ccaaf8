"""Predictions of a task's network, while it is trained and in the stage ``predict``."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist

from dataprep.schemas import PREDICTIONS
from model.finetuning.task_networks import TaskNetwork
from orchestration import Dataset
from pipelines.finetune.batch import Ints
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.labels import text_columns
from pipelines.finetune.task import Task
from pipelines.readers.rows import RowReader

_CACHED_GROUPS: Final = 4


class Predictor:
    """Predicts for rows of one split."""

    def __init__(
        self,
        task: Task,
        builder: ExampleBuilder,
        labels: Sequence[str],
        examples: Dataset,
        batch_size: int,
    ) -> None:
        """Open the split.

        Args:
            task: the task.
            builder: of the network's input.
            labels: in the order of the network's scores.
            examples: the prepared split.
            batch_size: examples in a forward pass.
        """
        self.task, self.builder, self.labels = task, builder, labels
        self.reader = RowReader(examples, builder.columns, keep=_CACHED_GROUPS)
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(
        self, network: TaskNetwork, numbers: Ints, autocast: torch.autocast
    ) -> Iterator[dict[str, Any]]:
        """Yield a row of ``PREDICTIONS`` for each row number."""
        network.eval()
        device = next(network.parameters()).device
        for i in range(0, len(numbers), self.batch_size):
            some = numbers[i : i + self.batch_size]
            rows = self.reader.take(some)
            batch = self.builder.evaluation(rows, some).to(device)
            with autocast:
                found = list(self.task.predict(network, batch, self.labels))
            decode = self.builder.texts.tokenizer.decode
            ids = rows["example_id"].to_pylist()
            for number, name, prediction in zip(some.tolist(), ids, found, strict=True):
                row = {"row": number, "example_id": name, **asdict(prediction)}
                if generated := row.pop("token_ids"):
                    row["labels"] = [decode(ids) for ids in generated]
                yield row


class Evaluator:
    """Scores a network on a split; the workers share its examples."""

    def __init__(self, predictor: Predictor, rank: int, num_workers: int) -> None:
        """Prepare.

        Args:
            predictor: of the split.
            rank: number of this worker, from 0.
            num_workers: number of workers.
        """
        self.predictor, self.num_workers = predictor, num_workers
        self.examples = text_columns(predictor.reader.dataset, predictor.task)
        rows = np.arange(self.examples.num_rows)
        # Whole batches, so that a prediction is the same to the last bit for any number of workers.
        self.mine = rows[rows // predictor.batch_size % num_workers == rank]

    def __call__(self, network: TaskNetwork, autocast: torch.autocast) -> dict[str, float]:
        """Return the metrics of the whole split, the same on every worker; all must call it."""
        mine = list(self.predictor(network, self.mine, autocast))
        everyone: list[list[dict[str, Any]]] = [mine]
        if self.num_workers > 1:
            everyone = [[] for _ in range(self.num_workers)]
            dist.all_gather_object(everyone, mine)
        rows = sorted((row for some in everyone for row in some), key=lambda row: int(row["row"]))
        return self.predictor.task.score(pa.Table.from_pylist(rows, PREDICTIONS), self.examples)
