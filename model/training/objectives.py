"""The masked objectives: sums over masked positions, so that any split of a batch adds up.

A loss is the mean over the masked positions of the whole global batch. The caller divides these
sums by counts that it knows beforehand, hence gradients depend on neither the size of micro-batches
nor the number of workers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.beit3 import BEiT3
from model.training.batch import MicroBatch, Objective


@dataclass(frozen=True)
class Prediction:
    """What one objective gave on one micro-batch."""

    loss_sum: Tensor
    "Cross-entropy, summed over masked positions."
    num_correct: Tensor
    targets: Tensor
    "(M,) long: what stood at the masked positions."


def predict(network: BEiT3, batch: MicroBatch) -> dict[Objective, Prediction]:
    """Run the network and predict at masked positions only."""
    encoded = network(
        images=batch.images,
        text_ids=batch.text_ids,
        text_padding=batch.text_padding,
        text_documents=batch.text_documents,
        image_mask=batch.image_mask,
        residual_scale=batch.residual_scale,
    )
    result: dict[Objective, Prediction] = {}
    if batch.text_mask is not None and batch.text_targets is not None:
        logits = network.mlm_head(encoded.text[batch.text_mask])
        result["mlm" if batch.stream == "text" else "mvlm_text"] = _prediction(
            logits, batch.text_targets[batch.text_mask]
        )
    if batch.image_mask is not None and batch.codes is not None:
        logits = network.mim_head(encoded.patches[batch.image_mask])
        result["mim" if batch.stream == "image" else "mvlm_image"] = _prediction(
            logits, batch.codes[batch.image_mask]
        )
    return result


def _prediction(logits: Tensor, targets: Tensor) -> Prediction:
    with torch.no_grad():
        num_correct = (logits.argmax(-1) == targets).sum()
    # Computed in fp32 whatever the network ran in: the sum runs over very many positions.
    loss_sum = F.cross_entropy(logits.float(), targets, reduction="sum")
    return Prediction(loss_sum, num_correct, targets)
