"""Loss and accuracy at the masked positions of held-out rows, by objective and source."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from model import BEiT3
from model.training import objectives
from model.training.batch import MicroBatch

SCHEMA: Final = pa.schema(
    [
        ("objective", pa.string()),
        ("source", pa.string()),
        ("loss_sum", pa.float64()),
        ("num_correct", pa.int64()),
        ("targets", pa.list_(pa.int32())),
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
        for i, name in enumerate(names):
            mine = source_of == i
            rows.append(
                {
                    "objective": objective,
                    "source": name,
                    "loss_sum": float(made.losses.double().cpu()[mine].sum()),
                    "num_correct": int(made.is_correct.cpu()[mine].sum()),
                    "targets": made.targets.cpu()[mine].tolist(),
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def masked_numbers(predictions: pa.Table) -> dict[str, float]:
    """Return loss and accuracy of each objective, also by source, and of the best constant guess.

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


def _numbers(name: str, rows: Sequence[dict[str, float | NDArray[np.int64]]]) -> dict[str, float]:
    targets = np.concatenate([row["targets"] for row in rows]) if rows else np.empty(0)
    if not len(targets):
        return {}
    frequency = np.unique(targets, return_counts=True)[1] / len(targets)
    return {
        f"loss/{name}": sum(float(row["loss_sum"]) for row in rows) / len(targets),
        f"accuracy/{name}": sum(int(row["num_correct"]) for row in rows) / len(targets),
        f"baseline_loss/{name}": float(-(frequency * np.log(frequency)).sum()),
        f"baseline_accuracy/{name}": float(frequency.max()),
        f"num_targets/{name}": len(targets),
    }
