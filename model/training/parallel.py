"""The network on several workers: a copy on each, or shards of every parameter (FSDP2).

Gradients are summed over the workers block by block while the backward goes on. The sum is not
divided: a loss here is divided by the masked positions of the global batch already.
"""

from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from model.network.beit3 import BEiT3

Sharding = Literal["none", "full"]


def distribute(
    network: BEiT3,
    sharding: Sharding,
    dtype: torch.dtype | None = None,
    reduce_dtype: torch.dtype | None = None,
) -> None:
    """Spread the first worker's network over all workers, in place; one worker does nothing.

    Call it before the optimizer is made.

    Args:
        network: on the worker's device.
        sharding: ``full`` keeps 1/W of weights, gradients and optimizer state on each of W workers,
            and gathers one block at a time; ``none`` keeps all of them on each worker.
        dtype: type of the gathered weights under ``full``; None is that of the weights.
        reduce_dtype: type in which gradients are summed over the workers under ``full``; None is
            that of the weights. Each micro-batch is summed in it and added up in that of the
            weights. Copies would add up their micro-batches in it, too.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    broadcast_weights(network)
    device, number = next(network.parameters()).device.type, dist.get_world_size()
    if sharding == "full":
        mesh = init_device_mesh(device, (number,), mesh_dim_names=("shard",))
        policy = MixedPrecisionPolicy(
            param_dtype=dtype,
            reduce_dtype=reduce_dtype or next(network.parameters()).dtype,
            cast_forward_inputs=False,
        )
    else:
        mesh = init_device_mesh(device, (number, 1), mesh_dim_names=("copy", "shard"))
        policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    # Heads run after the forward of the network, when its own shards are gathered no more. Copies
    # are never released, and a head that the last backward leaves out must be summed with the rest.
    heads = [network.mlm_head, network.mim_head] if sharding == "full" else []
    modules: list[nn.Module] = [*network.blocks, *heads, network]
    for module in modules:
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=sharding == "full")
    for module in modules:
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction


def broadcast_weights(network: nn.Module) -> None:
    """Give every worker the first worker's weights, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in (*network.parameters(), *network.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def before_backward(network: nn.Module, *, is_last: bool) -> None:
    """Say whether the next backward is the last of a step.

    Copies sum their gradients once, in the last backward. Shards do so in every backward, since the
    gradient of a whole network would not fit.
    """
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(is_last or is_sharded(network))
        network.set_is_last_backward(is_last)


def is_sharded(network: nn.Module) -> bool:
    """Return whether each worker holds a shard of every parameter rather than a copy."""
    parameter = next(network.parameters())
    return isinstance(parameter, DTensor) and parameter.device_mesh.ndim == 1
