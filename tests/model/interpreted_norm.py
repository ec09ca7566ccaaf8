"""Compares the fused kernels with PyTorch in fp64, on the CPU by Triton's interpreter.

``TRITON_INTERPRET=1 python -m tests.model.interpreted_norm`` prints the largest error of each
tensor of each case, relative to the tensor's largest value, as JSON. With the word
``network`` it compares the gradient of a network in fp32 with that of the eager network, with
activation checkpointing and with FSDP2, relative to its norm. It is a process of its own,
because Triton reads the variable when it is imported.
"""

import json
import sys
import tempfile

import torch
import torch.nn.functional as F

SHAPES = [(7, 3072), (5, 5632), (2, 6144), (9, 100), (0, 96), (1, 3), (6, 1408), (3, 4096)]
NAMES = ("result", "x", "weight", "bias")


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    if not expected.numel():
        return 0.0
    off = (found.detach().double() - expected.detach()).abs().max()
    return float(off / expected.detach().abs().max().clamp(min=1e-9))


def errors(rows: int, width: int, gelu: bool, dtype: torch.dtype) -> dict[str, float]:
    from model.network.fused_norm import fused_norm

    generator = torch.Generator().manual_seed(rows * width)
    x = (torch.randn(rows, width, generator=generator) * 2).to(dtype).requires_grad_()
    weight, bias = (torch.randn(width, generator=generator).requires_grad_() for _ in range(2))
    gradient = torch.randn(rows, width, generator=generator).to(dtype)
    y = fused_norm(x, weight, bias, 1e-5, gelu)[0]
    y.backward(gradient)
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    value = F.gelu(wide[0]) if gelu else wide[0]
    expected = F.layer_norm(value, (width,), wide[1], wide[2], 1e-5)
    expected.backward(gradient.double())
    found = (y, x.grad, weight.grad, bias.grad)
    assert all(
        one.dtype == two.dtype for one, two in zip(found[1:], (x, weight, bias), strict=True)
    )
    wanted = (expected, *(tensor.grad for tensor in wide))
    return {name: error(*pair) for name, *pair in zip(NAMES, found, wanted, strict=True)}


def network_errors() -> dict[str, float]:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    from model.network import layer_norm
    from tests.model.networks import RELEASED, network
    from tests.model.test_running import gradients

    def whole(made: torch.nn.Module) -> torch.Tensor:
        found = [
            getattr(g, "full_tensor", lambda g=g: g)() for g in gradients(made, RELEASED).values()
        ]
        return torch.cat([g.flatten() for g in found])

    torch.set_num_threads(1)
    expected = whole(network(RELEASED))
    calls = []
    fused = layer_norm.fused_norm
    layer_norm.norm_kernel = lambda device: "fused"
    layer_norm.fused_norm = lambda *arguments: calls.append(1) or fused(*arguments)
    result = {}
    for recomputing in ("none", "selective", "full"):
        made = network(RELEASED)
        made.activation_checkpointing = recomputing
        result[recomputing] = float((whole(made) - expected).norm() / expected.norm())
    with tempfile.NamedTemporaryFile() as file:
        dist.init_process_group("gloo", init_method=f"file://{file.name}", rank=0, world_size=1)
        made = network(RELEASED)
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        for module in (*made.blocks, made.mlm_head, made.mim_head, made):
            fully_shard(module, mesh=mesh)
        result["sharded"] = float((whole(made) - expected).norm() / expected.norm())
        dist.destroy_process_group()
    assert len(calls) >= len(result) * 24, "the kernel did not run in every sub-LayerNorm"
    return result


def kernel_errors() -> dict[str, dict[str, float]]:
    return {
        f"{rows}x{width} {'gelu' if gelu else 'plain'} {str(dtype)[6:]}": errors(
            rows, width, gelu, dtype
        )
        for rows, width in SHAPES
        for gelu in (True, False)
        for dtype in (torch.float32, torch.bfloat16)
    }


if __name__ == "__main__":
    json.dump(network_errors() if sys.argv[1:] == ["network"] else kernel_errors(), sys.stdout)
