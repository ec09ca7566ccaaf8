"""Learning rates that fall by a factor per layer from the head to the embeddings.

As in the authors' fine-tuning: the embeddings of both modalities are layer 0, block N is layer
N + 1, and the final LayerNorm and the heads are above the last block with factor 1.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from torch import nn

_BLOCK: Final = re.compile(r"network\.blocks\.(\d+)\.")
_EMBEDDINGS: Final = ("network.vision.", "network.language.")
_NOT_DECAYED: Final = ("network.vision.positions", "network.vision.class_token")
"Parameters of several dimensions, or whose released form has several, without weight decay."
_DECAYED: Final = "network.vision.mask_token"
"Has one dimension here and three in the released form, where weight decay applies to it."
_HEAD: Final = "head"


def lr_scale(name: str, num_layers: int, layer_decay: float, head_lr_factor: float = 1.0) -> float:
    """Return the factor of the learning rate of a parameter of a task network.

    Args:
        name: of the parameter, such as ``network.blocks.3.experts.vision.fc1.weight``.
        num_layers: blocks of the network.
        layer_decay: factor from one layer to the layer below.
        head_lr_factor: factor of the parameters whose name begins with ``head``.
    """
    if name.startswith(_HEAD):
        return head_lr_factor
    if name.startswith(_EMBEDDINGS):
        layer = 0
    elif found := _BLOCK.match(name):
        layer = int(found[1]) + 1
    else:
        layer = num_layers + 1
    return float(layer_decay ** (num_layers + 1 - layer))


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Return whether weight decay applies: to matrices, but not to vision positions."""
    return name == _DECAYED or (parameter.ndim > 1 and not name.startswith(_NOT_DECAYED))


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    num_layers: int,
    layer_decay: float,
    weight_decay: float,
    head_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups; each has ``lr_scale`` and ``weight_decay``.

    Args:
        named: parameters of a task network with their names.
        num_layers: blocks of the network.
        layer_decay: factor from one layer to the layer below; 1 gives all the same rate.
        weight_decay: of the parameters that it applies to.
        head_lr_factor: factor of the parameters whose name begins with ``head``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in _trained(named):
        scale = lr_scale(name, num_layers, layer_decay, head_lr_factor)
        decay = weight_decay if is_decayed(name, parameter) else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def _trained(
    named: Iterable[tuple[str, nn.Parameter]],
) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in named if parameter.requires_grad)
