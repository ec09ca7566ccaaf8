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
from model.training.squared_error import normalized_patches, squared_error_sum

Scoring = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None, Tensor]]
"""(outputs of the head, targets) → summed loss, whether each prediction is correct if they are
classes, and each row's loss."""


@dataclass(frozen=True)
class Masked:
    """Masked elements of one modality: where they are in a micro-batch and in the sequence."""

    positions: Callable[[MicroBatch], Tensor | None]
    "(M,) long, masked positions in the flattened targets; None if the batch has none."
    targets: Callable[[MicroBatch], Tensor | None]
    "(B, L) long classes or (B, L, P) float values to predict at L consecutive positions."
    first: Callable[[Encoded], int]
    "Index in the sequence of the first of these L positions."


TOKENS: Final = Masked(
    positions=lambda batch: batch.masked_text_positions,
    targets=lambda batch: batch.text_targets,
    first=lambda encoded: encoded.image_length,
)
CODES: Final = Masked(
    positions=lambda batch: batch.masked_image_positions if batch.has_codes else None,
    targets=lambda batch: batch.codes,
    first=lambda encoded: 1,
)


def _pixels(batch: MicroBatch) -> Tensor | None:
    if batch.images is None or batch.image_mask is None:
        return None
    return normalized_patches(batch.images, batch.image_mask.shape[1])


PIXELS: Final = Masked(
    positions=lambda batch: None if batch.has_codes else batch.masked_image_positions,
    targets=_pixels,
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
    scoring: Scoring = cross_entropy_sum
    "The loss; of squared errors there is no accuracy."

    @property
    def has_accuracy(self) -> bool:
        """Whether classes are predicted."""
        return self.scoring is not squared_error_sum

    def masked_positions(self, batch: MicroBatch) -> Tensor | None:
        """Return the positions (M,) to predict in a micro-batch; None if it has none."""
        return self.masked.positions(batch) if batch.stream == self.stream else None


OBJECTIVES: tuple[Objective, ...] = (
    Objective("mlm", "text", TOKENS, "mlm_head", "MLM: masked tokens of texts", "#0072B2"),
    Objective("mim", "image", CODES, "mim_head", "MIM: masked codes of images", "#D55E00"),
    Objective("mvlm_text", "pair", TOKENS, "mlm_head", "MVLM: masked tokens of pairs", "#56B4E9"),
    Objective("mvlm_image", "pair", CODES, "mim_head", "MVLM: masked codes of pairs", "#E69F00"),
    Objective(
        "mim_pixels",
        "image",
        PIXELS,
        "mim_head",
        "MIM: masked pixels of images",
        "#CC79A7",
        squared_error_sum,
    ),
    Objective(
        "mvlm_pixels",
        "pair",
        PIXELS,
        "mim_head",
        "MVLM: masked pixels of pairs",
        "#999999",
        squared_error_sum,
    ),
)


def objectives_of(image_target: str) -> list[Objective]:
    """Return the objectives of a network that predicts ``codes`` or ``pixels`` of patches."""
    other = PIXELS if image_target == "codes" else CODES
    return [objective for objective in OBJECTIVES if objective.masked is not other]


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
    "Scalar, cross-entropy or squared error summed over the masked positions."
    targets: Tensor
    "(M,) long, the classes at the masked positions, or (M, P) float, the values."
    losses: Tensor
    "(M,) loss at each masked position, without gradient."
    is_correct: Tensor | None
    "(M,) bool, whether the most likely class is the target; None if the targets are values."
    samples: Tensor
    "(M,) long, index in the micro-batch of the sample of each masked position."

    @property
    def num_correct(self) -> Tensor | None:
        """Return the number of correct predictions, a scalar long; None if they are values."""
        return None if self.is_correct is None else self.is_correct.sum()


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
        if positions is None:
            continue  # before the targets: normalizing the pixels of all patches takes time
        targets = objective.masked.targets(batch)
        assert targets is not None
        result[objective.name] = _predicted(
            getattr(network, objective.head),
            objective.scoring,
            encoded.hidden,
            objective.masked.first(encoded),
            targets,
            positions,
        )
    return result


def _predicted(
    head: nn.Module,
    scoring: Scoring,
    hidden: Tensor,
    first: int,
    targets: Tensor,
    positions: Tensor,
) -> Prediction:
    """Predict the targets (B, L) or (B, L, P) at the positions (M,) of their first two axes.

    The L positions begin at index ``first`` of each sequence of ``hidden`` (B, S, D).
    """
    length = targets.shape[1]
    sample = positions.div(length, rounding_mode="floor")
    row = positions + sample * (hidden.shape[1] - length) + first
    # index_select instead of hidden[row]: its backward adds rows without sorting the indices.
    masked, wanted = hidden.flatten(0, 1).index_select(0, row), targets.flatten(0, 1)[positions]
    loss_sum, is_correct, losses = scoring(head(masked), wanted)
    return Prediction(loss_sum, wanted, losses, is_correct, sample)
