"""What tasks with one class per example have in common: labels, loss, prediction, accuracy."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.task import Prediction

MOST_LABELS: Final = 5
"Labels of a prediction that are kept, best first."


def sorted_labels(train: pa.Table) -> list[str]:
    """Return the labels of the training examples, sorted.

    Raises:
        ValueError: there are fewer than two.
    """
    names = sorted({label for some in train["labels"].to_pylist() for label in some})
    if len(names) < 2:
        raise ValueError(
            f"the split train has the labels {names}; at least two are needed to choose from"
        )
    return names


def label_numbers(rows: pa.Table, labels: Mapping[str, int]) -> Tensor:
    """Return the number of each example's label, (B,) long; -1 without a known one."""
    return torch.tensor(
        [labels.get(some[0], -1) if some else -1 for some in rows["labels"].to_pylist()]
    )


def class_losses(scores: Tensor, batch: TaskBatch, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Return the summed cross-entropy of scores (B, classes), and the number of right ones."""
    assert batch.targets is not None
    loss = F.cross_entropy(
        scores.float(), batch.targets, reduction="sum", label_smoothing=smoothing
    )
    return {"loss": loss, "accuracy": (scores.argmax(1) == batch.targets).sum()}


def best_labels(
    scores: Tensor, labels: Sequence[str], most: int = MOST_LABELS
) -> Iterator[Prediction]:
    """Yield at most ``most`` labels of each example with their probabilities, best first.

    The labels are ranked by their scores, because several probabilities may be rounded to 0; of
    equal scores the first label is better.
    """
    best = scores.float().sort(dim=1, descending=True, stable=True).indices[:, :most]
    probabilities = scores.float().softmax(1).gather(1, best)
    for indices, values in zip(best.tolist(), probabilities.tolist(), strict=True):
        yield Prediction([labels[i] for i in indices], values)


def answered(
    predictions: pa.Table, examples: pa.Table, column: str = "labels"
) -> list[tuple[list[Any], list[str]]]:
    """Return a column of the predictions beside the labels of the examples that have some."""
    rows = zip(predictions[column].to_pylist(), examples["labels"].to_pylist(), strict=True)
    return [(found, given) for found, given in rows if given]


def accuracies(
    predictions: pa.Table, examples: pa.Table, ks: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Return the accuracy of the best label and among the best K, and that of the majority.

    Examples without a label are left out.
    """
    pairs = answered(predictions, examples)
    found = {
        "accuracy" if k == 1 else f"accuracy_top{k}": sum(
            bool(set(predicted[:k]) & set(given)) for predicted, given in pairs
        )
        / len(pairs)
        for k in ks
    }
    guess = Counter(given[0] for _, given in pairs).most_common(1)[0][1]
    return found | {"chance/accuracy": guess / len(pairs)}
