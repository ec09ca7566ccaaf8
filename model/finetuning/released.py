"""The released form of a task network: its encoder and its head in the authors' layout.

The layout of the encoder is that of ``model.network.interop``; heads have the same names here and
there. The authors load such a file into their class of the task, and their files load here.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from model.finetuning.task_networks import TaskNetwork
from model.network.config import BEiT3Config
from model.network.interop import (
    from_official,
    same_in_official_classes,
    task_heads,
    to_official,
)
from model.network.loading import ENCODER, StateMismatch, load, part_of, with_nearest
from model.network.weight_files import unwrapped

ENCODER_PREFIX: Final = "network."
CRITERION: Final = "criterion."
"Prefix under which the authors' loss may hold the temperature."
CLASSES: Final = {
    "retrieval": "BEiT3ForRetrieval",
    "vqa": "BEiT3ForVisualQuestionAnswering",
    "nlvr2": "BEiT3ForVisualReasoning",
    "imagenet": "BEiT3ForImageClassification",
    "captioning": "BEiT3ForCaptioning",
}
"The authors' classes by the name of the head, see ``model.network.interop.task_heads``."
WORD_HEAD: Final = frozenset({"mlm_head.weight", "mlm_head.bias"})
"Captioning's head has the names of the head of pretraining."
_NO_FINAL_NORM: Final = ("vqa", "imagenet")


def to_released(network: TaskNetwork) -> tuple[dict[str, Tensor], list[str]]:
    """Return (state in the released layout, names that the layout does not have).

    Vision-language experts are omitted, see ``model.network.interop``.
    """
    return state_to_released(network.state_dict(), network.network.config)


def state_to_released(
    state: Mapping[str, Tensor], config: BEiT3Config
) -> tuple[dict[str, Tensor], list[str]]:
    """Return what :func:`to_released` does, of the state of a task network around ``config``."""
    official, omitted = to_official(encoder_of(state), config, ENCODER)
    return official | heads_of(state), omitted


def class_of(state: Mapping[str, Tensor], config: BEiT3Config) -> str | None:
    """Return the name of the authors' class that computes what a task network does, or None.

    Args:
        state: of the task network.
        config: of its encoder.
    """
    ours = heads_of(state)
    heads = ["captioning"] if ours.keys() == WORD_HEAD else list(task_heads(ours))
    if len(heads) != 1 or heads[0] not in CLASSES or not same_in_official_classes(config):
        return None
    return CLASSES[heads[0]] if config.final_norm != (heads[0] in _NO_FINAL_NORM) else None


def load_released(network: TaskNetwork, saved: Mapping[str, object]) -> None:
    """Load a fine-tuned network of the same task; positions are fitted to its sizes.

    Args:
        network: of a decoupled configuration.
        saved: the released state, or what its file holds.

    Raises:
        StateMismatch: the encoder or the head has other names or shapes; nothing was loaded.
    """
    found: dict[str, Tensor] = {}
    for head in task_heads(saved).values():
        found |= {name.removeprefix(CRITERION): tensor for name, tensor in head.items()}
    ours = heads_of(network.state_dict())
    if ours.keys() == WORD_HEAD:
        found |= word_head_of(saved)
    different = [
        f"{name}: {tuple(found[name].shape)} given, {tuple(ours[name].shape)} in the network"
        for name in ours.keys() & found.keys()
        if found[name].shape != ours[name].shape
    ]
    missing, unknown = sorted(ours.keys() - found.keys()), sorted(found.keys() - ours.keys())
    if missing or unknown or different:
        raise StateMismatch(
            {
                "missing in the head": with_nearest(missing, unknown),
                "unknown to the head": with_nearest(unknown, missing),
                "of another shape in the head": sorted(different),
            }
        )
    state = from_official(saved)
    load(network.network, {n: t for n, t in state.items() if part_of(n) in ENCODER}, ENCODER)
    network.load_state_dict(found, strict=False)


def word_head_of(saved: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the head that scores words, of a captioning or a pretraining, in any layout."""
    return {name: tensor for name, tensor in unwrapped(saved).items() if name in WORD_HEAD}


def encoder_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder in a task network's state, by the names that it has without a task."""
    prefix = ENCODER_PREFIX
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def heads_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a task network's state that are not the encoder's."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(ENCODER_PREFIX)}
