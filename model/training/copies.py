"""Whether the workers' copies of the weights are equal bit by bit.

Each worker sums the bits of every tensor that it has whole, as integers and on its device; the sums
are compared in one exchange. A copy changes apart from the others by a fault of memory or by an
operation that is not the same everywhere, and the training goes on with a mean of two networks.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"By the bytes of an element."


def different_copy(network: nn.Module) -> tuple[str, list[int]] | None:
    """Return the first tensor of the network whose copies differ, and on which workers.

    Named are the workers whose copy is not that of the most. Every worker must call it; all get the
    same answer. Shards are no copies and are not compared.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    copies = list(_copies(network))
    if not copies:
        return None
    mine = torch.stack([_digest(tensor) for _, tensor in copies])
    extremes = torch.cat([mine, ~mine])  # the smallest ~x is that of the largest x
    dist.all_reduce(extremes, dist.ReduceOp.MIN)
    smallest, largest = extremes[: len(mine)], ~extremes[len(mine) :]
    if torch.equal(smallest, largest):
        return None
    index = int((smallest != largest).nonzero()[0, 0])
    of_all = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(of_all, mine)
    digests = [int(of_one[index]) for of_one in of_all]
    usual = max(digests, key=digests.count)
    return copies[index][0], [rank for rank, digest in enumerate(digests) if digest != usual]


def _copies(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of which this worker has a whole copy."""
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not isinstance(tensor, DTensor):
            yield name, tensor.detach()
        elif _is_copied(tensor):
            yield name, tensor.to_local().detach()


def _is_copied(tensor: DTensor) -> bool:
    """Return whether every worker has the whole tensor, not one worker a shard of all its rows."""
    placed = zip(tensor.placements, tensor.device_mesh.shape, strict=True)
    return all(placement.is_replicate() or size == 1 for placement, size in placed)


def _digest(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's elements as integers, a scalar long that may wrap around."""
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)
