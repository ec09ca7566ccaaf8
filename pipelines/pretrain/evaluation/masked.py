"""Loss and accuracy at the masked positions of held-out rows, by objective and source."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from model import BEiT3
from model.training import objectives
from model.training.batch import MicroBatch

SCHEMA: Final = pa.schema(
    [
        ("objective", pa.string()),
        ("source", pa.string()),
        ("loss_sum", pa.float64()),
        ("num_targets", pa.int64()),
        ("num_correct", pa.int64()),  # null if the targets are values
        ("targets", pa.list_(pa.int32())),  # likewise
        ("square_sum", pa.float64()),  # mean square of each target, summed; null of classes
    ]
)


def masked_rows(network: BEiT3, batch: MicroBatch, sources: Sequence[str]) -> pa.Table:
    """Predict the masked positions of a micro-batch (B rows); one row per objective and source.

    Args:
        network: in evaluation mode.
        batch: the micro-batch.
        sources: source of each sample.
    """
    names = sorted(set(sources))
    number = torch.tensor([names.index(name) for name in sources])
    rows = []
    for objective, made in objectives.predict(network, batch).items():
        source_of = number[made.samples.cpu()]
        losses, targets = made.losses.double().cpu(), made.targets.cpu()
        correct = None if made.is_correct is None else made.is_correct.cpu()
        for i, name in enumerate(names):
            mine = source_of == i
            row = {
                "objective": objective,
                "source": name,
                "loss_sum": float(losses[mine].sum()),
                "num_targets": int(mine.sum()),
            }
            if correct is None:
                row["square_sum"] = float(targets[mine].double().square().mean(1).sum())
            else:
                row["num_correct"] = int(correct[mine].sum())
                row["targets"] = targets[mine].tolist()
            rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


def masked_numbers(predictions: pa.Table) -> dict[str, float]:
    """Return loss and accuracy of each objective, also by source, and of the best constant guess.

    There is no accuracy of values; the best constant guess of normalized values is 0.

    Args:
        predictions: rows of :func:`masked_rows`.
    """
    numbers: dict[str, float] = {}
    rows = predictions.to_pylist()
    for objective in (entry.name for entry in objectives.OBJECTIVES):
        mine = [row for row in rows if row["objective"] == objective]
        numbers |= _numbers(objective, mine)
        for source in sorted({row["source"] for row in mine}):
            of_source = [row for row in mine if row["source"] == source]
            numbers |= _numbers(f"{objective}/{source}", of_source)
    return numbers


def _numbers(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    if not (total := sum(row["num_targets"] for row in rows)):
        return {}
    numbers = {
        f"loss/{name}": sum(row["loss_sum"] for row in rows) / total,
        f"num_targets/{name}": total,
    }
    if rows[0]["targets"] is None:
        baseline = sum(row["square_sum"] for row in rows) / total
        return numbers | {f"baseline_loss/{name}": baseline}
    targets = np.concatenate([row["targets"] for row in rows])
    frequency = np.unique(targets, return_counts=True)[1] / total
    return numbers | {
        f"accuracy/{name}": sum(row["num_correct"] for row in rows) / total,
        f"baseline_loss/{name}": float(-(frequency * np.log(frequency)).sum()),
        f"baseline_accuracy/{name}": float(frequency.max()),
    }
