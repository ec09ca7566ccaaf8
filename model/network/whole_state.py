"""Whether a state dict holds the parts of the network of a configuration."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from model.network.beit3 import BEiT3
from model.network.config import BEiT3Config
from model.network.loading import PARTS, Part, check_names


def check_whole(
    state: Mapping[str, Tensor], config: BEiT3Config, parts: Iterable[Part] = PARTS
) -> None:
    """Raise :class:`StateMismatch` unless ``state`` holds the parts of ``config``'s network."""
    with torch.device("meta"):
        ours = BEiT3(config).state_dict()
    check_names(state, ours, set(parts))
