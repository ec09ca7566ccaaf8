"""The released form of a task network: its encoder and its head in the authors' layout.

The layout of the encoder is that of ``model.network.interop``; heads have the same names here and
there. The authors load such a file into their class of the task, and their files load here.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from model.finetuning.task_networks import TaskNetwork
from model.network.interop import from_official, task_heads, to_official
from model.network.loading import ENCODER, StateMismatch, load, with_nearest

_ENCODER: Final = "network."
_CRITERION: Final = "criterion."
"Prefix under which the authors' loss may hold the temperature."


def to_released(network: TaskNetwork) -> tuple[dict[str, Tensor], list[str]]:
    """Return (state in the released layout, names that the layout does not have).

    Vision-language experts are omitted, see ``model.network.interop``.
    """
    state = network.state_dict()
    encoder = {n.removeprefix(_ENCODER): t for n, t in state.items() if n.startswith(_ENCODER)}
    official, omitted = to_official(encoder, network.network.config, ENCODER)
    return official | heads_of(state), omitted


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
        found |= {name.removeprefix(_CRITERION): tensor for name, tensor in head.items()}
    ours = heads_of(network.state_dict())
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
    load(network.network, from_official(saved), ENCODER)
    network.load_state_dict(found, strict=False)


def heads_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a task network's state that are not the encoder's."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_ENCODER)}
