"""The grounding gap: how much the right partner helps to predict masked words and patches.

Masked words of a caption, each with all of its pieces, are predicted with the pair's own image and
with that of another pair; masked patches of an image with the pair's own caption and with another
one; everything else is the same. The gap is the difference of the accuracies. Guessing from the
unmasked rest gives both predictions the same accuracy, so that a network which does not look at the
partner has a gap of 0. The control is the difference between two wrong partners, whose expected
value is 0 for any network. Intervals are bootstrapped over pairs. A network that predicts pixels
instead of codes has no accuracy at patches, and no gap there.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import BEiT3
from model.metrics.bootstrap import ratio_interval
from model.training import objectives
from model.training.batch import MicroBatch
from pipelines.pretrain.evaluation.inputs import MaskedPairs

KINDS: Final = ("words", "patches")
_PARTNERS: Final = ("right", "other", "third")
"The pair itself, the next one in the micro-batch, and the one after that."
SCHEMA: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("num_targets", pa.int64()),
        *((partner, pa.int64()) for partner in _PARTNERS),
    ]
)


def grounding_rows(network: BEiT3, pairs: MaskedPairs) -> pa.Table:
    """Predict masked words and patches of pairs; one row for each pair and kind.

    Args:
        network: in evaluation mode.
        pairs: at least three pairs with different captions.
    """
    tables = [SCHEMA.empty_table()]
    for kind in KINDS:
        if kind == "patches" and not pairs.batch.has_codes:
            continue
        units = _units(pairs, kind)
        columns: dict[str, Any] = {
            partner: _num_correct(network, _with_partner(pairs.batch, kind, shift), units)
            for shift, partner in enumerate(_PARTNERS)
        }
        num_targets = (units.max(1).values + 1).cpu().numpy()
        columns = {"kind": [kind] * len(num_targets), "num_targets": num_targets, **columns}
        tables.append(pa.table(columns, SCHEMA))
    return pa.concat_tables(tables)


def _units(pairs: MaskedPairs, kind: str) -> Tensor:
    """Return the number of the masked word or patch of each position, from 0; -1 elsewhere."""
    text, image = pairs.batch.text_mask, pairs.batch.image_mask
    assert text is not None and image is not None
    if kind == "patches":
        return torch.where(image, image.cumsum(1) - 1, -1)
    previous = torch.nn.functional.pad(torch.where(text, pairs.words, -1)[:, :-1], (1, 0), value=-1)
    begins = text & (pairs.words != previous)
    return torch.where(text, begins.cumsum(1) - 1, -1)


def _with_partner(batch: MicroBatch, kind: str, shift: int) -> MicroBatch:
    """Mask one modality, and take the other from the pair that is so many rows later."""
    assert batch.images is not None and batch.text_targets is not None
    partner = torch.arange(batch.num_samples, device=batch.images.device).roll(-shift)
    if kind == "words":
        return replace(batch, images=batch.images[partner], image_mask=None)
    padding = None if batch.text_padding is None else batch.text_padding[partner]
    text = batch.text_targets[partner]
    return replace(batch, text_ids=text, text_padding=padding, text_mask=None)


def _num_correct(network: BEiT3, batch: MicroBatch, units: Tensor) -> NDArray[np.int64]:
    """Return the number of units of each pair, (B,), all of whose positions are predicted right.

    The predictions are in the order of the masked positions, which are those of a unit.
    """
    (made,) = objectives.predict(network, batch).values()
    assert made.is_correct is not None
    wrong = torch.zeros_like(units, dtype=torch.bool)
    masked = units >= 0
    wrong[masked] = ~made.is_correct
    num_wrong = torch.zeros(len(units), units.shape[1], dtype=torch.long, device=units.device)
    num_wrong.scatter_add_(1, units.clamp(min=0), wrong.long())
    num_units = units.max(1).values + 1
    exists = torch.arange(units.shape[1], device=units.device) < num_units[:, None]
    right: NDArray[np.int64] = ((num_wrong == 0) & exists).sum(1).cpu().numpy()
    return right


def grounding_numbers(predictions: pa.Table, seed: int) -> dict[str, float]:
    """Return accuracies, gaps and controls with their intervals, in 0-1.

    Args:
        predictions: rows of :func:`grounding_rows`.
        seed: of the intervals.
    """
    numbers: dict[str, float] = {}
    for i, kind in enumerate(KINDS):
        mine = predictions.filter(pc.equal(predictions["kind"], kind))
        mine = mine.filter(pc.greater(mine["num_targets"], 0))
        if not mine.num_rows:
            continue
        right, other, third = (mine[name].to_numpy() for name in _PARTNERS)
        counts = mine["num_targets"].to_numpy()
        name, total = f"grounding/{kind}", counts.sum()
        numbers |= {
            f"{name}/accuracy": right.sum() / total,
            f"{name}/accuracy_other": other.sum() / total,
            f"{name}/num_pairs": len(counts),
            f"{name}/num_targets": int(total),
        }
        for what, gain in (("gap", right - other), ("control", third - other)):
            low, high = ratio_interval(gain, counts, seed + i)
            numbers |= {
                f"{name}/{what}": gain.sum() / total,
                f"{name}/{what}_low": low,
                f"{name}/{what}_high": high,
            }
    return {name: float(value) for name, value in numbers.items()}
