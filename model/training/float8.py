"""Float8 products in the linear layers of the blocks, by torchao, for GPUs that have them.

Each of the three products of a layer (output, gradient of the input, gradient of the weights) takes
its factors in 8 bits, each scaled by its largest absolute value at every call (arXiv:2209.05433).
Weights stay fp32 in the optimizer and in checkpoints, under their usual names; only the module
around them changes, so weights move freely between networks with and without float8. Embeddings,
LayerNorms, attention's own products and the heads are computed as without.

A scale belongs to a tensor, so the rounding of a sample depends on the samples beside it in its
micro-batch. With one scale per position it would not, at about half of the gain in torchao's
measurements.
"""

import importlib.util
from typing import Final

import torch
from torch import nn

from model.network.beit3 import BEiT3
from model.network.config import BEiT3Config

MIN_CAPABILITY: Final = (8, 9)
"Compute capability of the first GPUs with float8 products (Ada; Hopper has 9.0)."
MULTIPLE: Final = 16
"Widths of float8 products are multiples of this number."


def misfit(config: BEiT3Config) -> str | None:
    """Return the field of a network whose linear layers float8 products cannot compute, or None."""
    for name in ("width", "ffn_width"):
        if getattr(config, name) % MULTIPLE:
            return f"{name} = {getattr(config, name)} is not a multiple of {MULTIPLE}"
    return None


def unavailable(device: torch.device | None = None) -> str | None:
    """Return why float8 products cannot run, or None.

    Args:
        device: of the training; None asks for what is known on this machine, which may have no GPU
            while the workers have.
    """
    if importlib.util.find_spec("torchao") is None:
        return "torchao is not installed; install the extra gpu, or torchao"
    if device is None:
        if not torch.cuda.is_available():
            return None
        device = torch.device("cuda")
    if device.type != "cuda":
        return f"the device is {device.type}; float8 products need a GPU"
    found = torch.cuda.get_device_capability(device)
    if found < MIN_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return (
            f"{name} has compute capability {found[0]}.{found[1]}; float8 products need "
            f"{MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]} or more"
        )
    return None


def use_float8(network: BEiT3, *, emulate: bool = False) -> None:
    """Let the linear layers of the blocks compute in float8, in place.

    Call it before blocks are compiled and before the network is spread over workers.

    Args:
        network: on its device.
        emulate: round as float8 does and multiply in fp32, on any device.

    Raises:
        ValueError: torchao or the hardware is missing, or a width does not fit.
    """
    device = next(network.parameters()).device
    fault = misfit(network.config)
    if not emulate:
        fault = fault or unavailable(device)
    if fault is not None:
        raise ValueError(f"float8: {fault}")
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    # The gradient of the weights sums over positions, whose number need not be a multiple of 16.
    config = Float8LinearConfig(emulate=emulate, pad_inner_dim=True)
    for block in network.blocks:
        convert_to_float8_training(block, config=config)


def float8_layers(network: nn.Module) -> list[str]:
    """Return the names of the linear layers that compute in float8."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and type(module) is not nn.Linear
    ]
