"""The masked objectives: sums over masked positions, so that any split of a batch adds up.

A loss is the mean over the masked positions of the whole global batch. The caller divides these
sums by counts that it knows beforehand, hence gradients depend on neither the size of micro-batches
nor the number of workers.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from model.network.beit3 import BEiT3
from model.training.batch import MicroBatch, Objective
from model.training.cross_entropy import cross_entropy_sum


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
    if batch.text_places is not None and batch.text_targets is not None:
        result["mlm" if batch.stream == "text" else "mvlm_text"] = _predicted(
            network.mlm_head,
            encoded.hidden,
            encoded.image_length,
            batch.text_targets,
            batch.text_places,
        )
    if batch.image_places is not None and batch.codes is not None:
        result["mim" if batch.stream == "image" else "mvlm_image"] = _predicted(
            network.mim_head, encoded.hidden, 1, batch.codes, batch.image_places
        )
    return result


def _predicted(
    head: nn.Module, hidden: Tensor, first: int, targets: Tensor, places: Tensor
) -> Prediction:
    """Predict the targets (B, L) at places (M,) of them, flattened.

    Their L positions begin at ``first`` in each sequence of ``hidden`` (B, S, D).
    """
    length = targets.shape[1]
    sample = places.div(length, rounding_mode="floor")
    row = places + sample * (hidden.shape[1] - length) + first
    # index_select and not hidden[row]: its backward adds rows and sorts nothing.
    masked, wanted = hidden.flatten(0, 1).index_select(0, row), targets.flatten()[places]
    loss_sum, num_correct = cross_entropy_sum(head(masked), wanted)
    return Prediction(loss_sum, num_correct, wanted)
