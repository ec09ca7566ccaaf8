"""Classes of a sentence or a pair of sentences, or a number for a pair: GLUE and own sentences.

The network sees text alone. ``scored_by`` follows GLUE: accuracy for SST-2, QNLI, RTE and MNLI,
accuracy and F1 for MRPC and QQP, Matthews correlation for CoLA, Pearson and Spearman correlation
for STS-B, whose labels are numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from model import BEiT3
from model.finetuning.task_networks import ForTextClassification, TaskNetwork
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.class_scores import (
    MOST_LABELS,
    accuracies,
    answered,
    best_labels,
    class_losses,
    label_numbers,
    sorted_labels,
)
from pipelines.finetune.task import Prediction, Task
from pipelines.finetune.texts import TextEncoder

ScoredBy = Literal["accuracy", "accuracy_and_f1", "matthews", "correlation"]
_SCORE: Final = "score"
_METRICS: Final[Mapping[ScoredBy, Sequence[str]]] = {
    "accuracy": ("accuracy",),
    "accuracy_and_f1": ("accuracy", "f1"),
    "matthews": ("matthews",),
    "correlation": ("pearson", "spearman"),
}


class TextClassification(Task):
    """The eight corpora of GLUE, and own sentences with a label."""

    metric: ClassVar = _SCORE
    num_images: ClassVar = 0
    num_texts: ClassVar = (1, 2)

    name: Literal["text_classification"]
    "Classification of a sentence or a pair of sentences."
    scored_by: ScoredBy = "accuracy"
    "Metric whose value is the score; correlation takes labels for numbers."

    @property
    def is_regression(self) -> bool:
        """Return whether labels are numbers."""
        return self.scored_by == "correlation"

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        return (*_METRICS[self.scored_by], _SCORE)

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`; a regression has none."""
        if not self.is_regression:
            names = sorted_labels(splits["train"])
            if self.scored_by in ("accuracy_and_f1", "matthews") and len(names) != 2:
                raise ValueError(
                    f"task.scored_by = {self.scored_by} needs two labels, the split train has "
                    f"{len(names)}; set task.scored_by=accuracy"
                )
            return names
        for split, table in splits.items():
            names, labels = (table[column].to_pylist() for column in ("example_id", "labels"))
            for name, some in zip(names, labels, strict=True):
                if some and not _is_number(some[0]):
                    raise ValueError(
                        f"example {name} of the split {split} has the label {some[0]!r}, which is "
                        "no number; set task.scored_by=accuracy for classes"
                    )
        return []

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        return ForTextClassification(encoder, len(labels) or 1)

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> Tensor:
        """Return the number of each example's class, (B,) long, or its label, (B,) float."""
        if not self.is_regression:
            return label_numbers(rows, labels)
        return torch.tensor(
            [
                float(some[0]) if some and _is_number(some[0]) else 0.0
                for some in rows["labels"].to_pylist()
            ]
        )

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """Cross-entropy or squared error, summed over the examples."""
        scores = self._scores(network, batch)
        if not self.is_regression:
            return class_losses(scores, batch)
        assert batch.targets is not None
        return {"loss": F.mse_loss(scores[:, 0].float(), batch.targets, reduction="sum")}

    def predict(
        self,
        network: TaskNetwork,
        batch: TaskBatch,
        labels: Sequence[str],
        most: int = MOST_LABELS,
    ) -> Iterator[Prediction]:
        """See :class:`Task`; ``most`` labels are kept."""
        scores = self._scores(network, batch).float()
        if not self.is_regression:
            yield from best_labels(scores, labels, most)
            return
        for (score,) in scores.tolist():
            yield Prediction([f"{score:.3f}"], [score])

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return the metrics of :attr:`scored_by`, and their mean as ``score``.

        A label that is no number does not count where numbers are compared.
        """
        metrics: dict[str, Callable[[pa.Table, pa.Table], dict[str, float]]] = {
            "accuracy": partial(accuracies, ks=(1,)),
            "accuracy_and_f1": _with_f1,
            "matthews": _matthews,
            "correlation": _correlations,
        }
        numbers = metrics[self.scored_by](predictions, examples)
        own = [value for name, value in numbers.items() if not name.startswith("chance/")]
        return numbers | {_SCORE: sum(own) / len(own)}

    def is_right(self, label: str, given: Sequence[str]) -> bool | None:
        """See :class:`Task`; a number is neither right nor wrong."""
        return None if self.is_regression else super().is_right(label, given)

    def _scores(self, network: TaskNetwork, batch: TaskBatch) -> Tensor:
        scores: Tensor = network(batch.text_ids, batch.text_padding, batch.scale(0))
        return scores


def _with_f1(predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
    from sklearn.metrics import f1_score

    predicted, true = _labels_of(predictions, examples)
    both = {label for some in predictions["labels"].to_pylist() for label in some}
    positive = max(both)  # a prediction names both labels
    pair = ([label == positive for label in some] for some in (true, predicted))
    return {
        **accuracies(predictions, examples, ks=(1,)),
        "f1": float(f1_score(*pair, zero_division=0.0)),
    }


def _matthews(predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
    from sklearn.metrics import matthews_corrcoef

    predicted, true = _labels_of(predictions, examples)
    return {"matthews": float(matthews_corrcoef(true, predicted)), "chance/matthews": 0.0}


def _correlations(predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    pairs = [
        (found[0], float(given[0]))
        for found, given in answered(predictions, examples, "scores")
        if _is_number(given[0])
    ]
    predicted, true = np.array(pairs).reshape(-1, 2).T
    if len(set(predicted)) < 2 or len(set(true)) < 2:  # a constant has no correlation
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(pearsonr(predicted, true).statistic),
        "spearman": float(spearmanr(predicted, true).statistic),
    }


def _labels_of(predictions: pa.Table, examples: pa.Table) -> tuple[list[str], list[str]]:
    """Return the predicted and the true labels of the examples that have one."""
    pairs = answered(predictions, examples)
    return [found[0] for found, _ in pairs], [given[0] for _, given in pairs]


def _is_number(label: str) -> bool:
    try:
        return bool(np.isfinite(float(label)))
    except ValueError:
        return False
