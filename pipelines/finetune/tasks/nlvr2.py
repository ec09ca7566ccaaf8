"""NLVR2: whether a sentence is true of two images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import pyarrow as pa
from torch import Tensor

from model import BEiT3
from model.finetuning.task_networks import ForVisualReasoning, TaskNetwork
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.class_scores import (
    MOST_LABELS,
    accuracies,
    best_labels,
    class_losses,
    label_numbers,
    sorted_labels,
)
from pipelines.finetune.task import Prediction, Task
from pipelines.finetune.texts import TextEncoder


class VisualReasoning(Task):
    """NLVR2, and own pairs of images with a sentence and a label."""

    metric: ClassVar = "accuracy"
    num_images: ClassVar = 2
    num_texts: ClassVar = (1, 1)
    num_passes: ClassVar = 2

    name: Literal["nlvr2"]
    "Visual reasoning over two images."

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        return ("accuracy",)

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`; ``False`` is 0 and ``True`` 1, as published."""
        return sorted_labels(splits["train"])

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        return ForVisualReasoning(encoder, len(labels))

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> Tensor:
        """Return the number of each example's label, (B,) long."""
        return label_numbers(rows, labels)

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """Cross-entropy, summed over the examples."""
        return class_losses(self._scores(network, batch), batch)

    def predict(
        self,
        network: TaskNetwork,
        batch: TaskBatch,
        labels: Sequence[str],
        most: int = MOST_LABELS,
    ) -> Iterator[Prediction]:
        """See :class:`Task`; ``most`` labels are kept."""
        return best_labels(self._scores(network, batch), labels, most)

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return the accuracy, and that of the most frequent label."""
        return accuracies(predictions, examples, ks=(1,))

    def _scores(self, network: TaskNetwork, batch: TaskBatch) -> Tensor:
        scale = batch.residual_scale
        scores: Tensor = network(
            batch.images,
            batch.text_ids,
            batch.text_padding,
            None if scale is None else scale.flatten(2),
        )
        return scores
