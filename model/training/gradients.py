"""The gradient of a step: its norm by part of the network, and clipping."""

from collections.abc import Mapping
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model.network import loading
from model.training.parallel import is_sharded

PARTS: Final = ("vision", "language", "vision_language", "heads", "shared")
"""Parts of the network whose gradients are measured apart: the embedding, experts and own attention
weights of each modality, the experts of fused layers, the prediction heads, and all the rest."""
_NAMES: Final[Mapping[str, str]] = {
    "fusion": "vision_language", "mlm_head": "heads", "mim_head": "heads",
}  # fmt: skip
"Where a part is named otherwise than in ``model.network.loading``."


def part_of(name: str) -> str:
    """Return the one of :data:`PARTS` to which a parameter of the network belongs."""
    part = loading.part_of(name)
    return _NAMES.get(part, part)


def parts_of(network: nn.Module) -> list[str]:
    """Return those of :data:`PARTS` that a network has."""
    found = {part_of(name) for name, _ in network.named_parameters()}
    return [part for part in PARTS if part in found]


def fill_missing(network: nn.Module) -> None:
    """Give a gradient of 0 to every parameter that no micro-batch has used."""
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def squared_norms(network: nn.Module) -> Tensor:
    """Return this worker's term of the squared gradient norm of each of :func:`parts_of`.

    The sum over all workers is the squared norm: a worker has a shard, or one of equal copies.
    Norms are computed in the gradient's type and squared in float64.
    """
    gradients: dict[str, list[Tensor]] = {part: [] for part in parts_of(network)}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        gradients[part_of(name)].append(_local(parameter.grad))
    norms = [nn.utils.get_total_norm(some) for some in gradients.values()]
    squares = torch.stack([norm.double() for norm in norms]).square()
    if dist.is_initialized() and not is_sharded(network):
        squares /= dist.get_world_size()
    return squares


def clip(network: nn.Module, norm: float, max_norm: float) -> None:
    """Scale the gradient down to ``max_norm`` if its ``norm`` is larger, as torch does."""
    factor = max_norm / (norm + 1e-6)
    if factor < 1:
        gradients = [_local(p.grad) for p in network.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
