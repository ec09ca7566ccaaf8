"""The pretraining objectives: one table, and the losses over it (paper, section 2.2).

``OBJECTIVES`` is the only list of objectives. The loss, the counts of masked positions, the step's
metrics, the loss weights of a recipe, the evaluation, the loss figure and the summary all iterate
it, so an objective is added by one more line.

A loss here is a sum over masked positions, so that it adds up over any split of a batch. The caller
divides by the number of masked positions of the whole global batch, which is known before the
forward; gradients therefore depend on neither the micro-batch size nor the number of workers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from model.network.beit3 import BEiT3, Encoded
from model.training.batch import MicroBatch, Stream
from model.training.cross_entropy import cross_entropy_sum


@dataclass(frozen=True)
class Masked:
    """Masked elements of one modality: where they are in a micro-batch and in the sequence."""

    positions: Callable[[MicroBatch], Tensor | None]
    "(M,) long, masked positions in the flattened targets; None if the batch has none."
    targets: Callable[[MicroBatch], Tensor | None]
    "(B, L) long, the class to predict at each of L consecutive positions of the sequence."
    first: Callable[[Encoded], int]
    "Index in the sequence of the first of these L positions."


TOKENS: Final = Masked(
    positions=lambda batch: batch.masked_text_positions,
    targets=lambda batch: batch.text_targets,
    first=lambda encoded: encoded.image_length,
)
CODES: Final = Masked(
    positions=lambda batch: batch.masked_image_positions,
    targets=lambda batch: batch.codes,
    first=lambda encoded: 1,
)


@dataclass(frozen=True)
class Objective:
    """One masked prediction task on one stream."""

    name: str
    "Key of the loss weight in a recipe; suffix of the metrics, as in ``loss/mlm``."
    stream: Stream
    "Stream whose micro-batches the objective applies to."
    masked: Masked
    "Masked elements to predict."
    head: str
    "Name of the prediction head: a module of the network, (M, D) → (M, classes)."
    title: str
    "Plain words for figures and summary tables."
    color: str
    "Color of the objective's curves, as #RRGGBB."

    def masked_positions(self, batch: MicroBatch) -> Tensor | None:
        """Return the positions (M,) to predict in a micro-batch; None if it has none."""
        return self.masked.positions(batch) if batch.stream == self.stream else None


OBJECTIVES: tuple[Objective, ...] = (
    Objective("mlm", "text", TOKENS, "mlm_head", "MLM: masked tokens of texts", "#0072B2"),
    Objective("mim", "image", CODES, "mim_head", "MIM: masked codes of images", "#D55E00"),
    Objective("mvlm_text", "pair", TOKENS, "mlm_head", "MVLM: masked tokens of pairs", "#56B4E9"),
    Objective("mvlm_image", "pair", CODES, "mim_head", "MVLM: masked codes of pairs", "#E69F00"),
)


def num_predictions(batch: MicroBatch) -> dict[str, int]:
    """Return the number of masked positions of each objective that applies to a micro-batch."""
    found = {objective.name: objective.masked_positions(batch) for objective in OBJECTIVES}
    return {name: len(positions) for name, positions in found.items() if positions is not None}


def complete_loss_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return a weight for every objective, 1 for those without one in ``weights``.

    Raises:
        ValueError: a key is not the name of an objective.
    """
    names = [objective.name for objective in OBJECTIVES]
    if unknown := sorted(weights.keys() - set(names)):
        raise ValueError(
            f"no objective is named {', '.join(unknown)}; objectives: {', '.join(names)}"
        )
    return {name: weights.get(name, 1.0) for name in names}


@dataclass(frozen=True)
class Prediction:
    """The result of one objective on one micro-batch."""

    loss_sum: Tensor
    "Scalar, cross-entropy summed over the masked positions."
    num_correct: Tensor
    "Scalar long, the number of masked positions at which the most likely class is the target."
    targets: Tensor
    "(M,) long, the classes at the masked positions."
    losses: Tensor
    "(M,) cross-entropy at each masked position, without gradient."
    is_correct: Tensor
    "(M,) bool, whether the most likely class is the target."
    samples: Tensor
    "(M,) long, index in the micro-batch of the sample of each masked position."


def predict(network: BEiT3, batch: MicroBatch) -> dict[str, Prediction]:
    """Run the network on a micro-batch; compute logits and losses at masked positions only.

    Returns:
        The prediction of each objective that applies, by its name.
    """
    encoded = network(
        images=batch.images,
        text_ids=batch.text_ids,
        text_padding=batch.text_padding,
        text_documents=batch.text_documents,
        image_mask=batch.image_mask,
        residual_scale=batch.residual_scale,
    )
    result: dict[str, Prediction] = {}
    for objective in OBJECTIVES:
        positions = objective.masked_positions(batch)
        targets = objective.masked.targets(batch)
        if positions is not None and targets is not None:
            head = getattr(network, objective.head)
            first = objective.masked.first(encoded)
            result[objective.name] = _predicted(head, encoded.hidden, first, targets, positions)
    return result


def _predicted(
    head: nn.Module, hidden: Tensor, first: int, targets: Tensor, positions: Tensor
) -> Prediction:
    """Predict the targets (B, L) at the positions (M,) of the flattened targets.

    The L positions begin at index ``first`` of each sequence of ``hidden`` (B, S, D).
    """
    length = targets.shape[1]
    sample = positions.div(length, rounding_mode="floor")
    row = positions + sample * (hidden.shape[1] - length) + first
    # index_select instead of hidden[row]: its backward adds rows without sorting the indices.
    masked, wanted = hidden.flatten(0, 1).index_select(0, row), targets.flatten()[positions]
    loss_sum, is_correct, losses = cross_entropy_sum(head(masked), wanted)
    return Prediction(loss_sum, is_correct.sum(), wanted, losses, is_correct, sample)
