"""Activation checkpointing: what a block keeps for the backward, and what it computes again.

``full`` keeps the input of each block and runs the block again in the backward. ``selective`` also
keeps what is costly to compute: the attention's output, and the outputs of the products that widen
their input (q, k and v; the first product of an expert). LayerNorms, GELU and the attention's
output projection are computed again. The second product of a block's last expert is not, as torch
stops once all that the backward needs is there. So about half of the memory is kept for a few
percent more work.

A compiled block calls ``run`` within its graphs: torch then divides each into a forward and a
backward by the same policy, which may recompute that last product too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from model.network.config import Recomputing

T = TypeVar("T")

_ATEN: Final = torch.ops.aten
_ATTENTION: Final = frozenset(
    {
        _ATEN._scaled_dot_product_flash_attention.default,
        _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
        _ATEN._scaled_dot_product_efficient_attention.default,
        _ATEN._scaled_dot_product_cudnn_attention.default,
    }
)
_FIRST_FACTOR: Final = {_ATEN.mm.default: 0, _ATEN.addmm.default: 1}
"Number of the argument that is the input (positions, width) of a product; the weights follow it."


def run(block: Callable[..., T], recomputing: Recomputing, *args: Any) -> T:
    """Call a block; its backward computes again what ``recomputing`` does not keep."""
    if recomputing == "none" or not torch.is_grad_enabled():
        return block(*args)
    if recomputing == "full":
        result: T = checkpoint(block, *args, use_reentrant=False)
        return result
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    result = checkpoint(block, *args, use_reentrant=False, context_fn=contexts)
    return result


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operation in _ATTENTION:
        return CheckpointPolicy.MUST_SAVE
    first = _FIRST_FACTOR.get(operation)
    if first is not None and args[first + 1].shape[1] > args[first].shape[1]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
