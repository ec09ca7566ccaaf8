"""The fused GELU and LayerNorm against PyTorch's, without a GPU; ``test_gpu.py`` runs it on one."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from model.network.layer_norm import SubLayerNorm, norm_kernel
from tests.model.networks import RELEASED, SHARED, network

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is not installed"
)
LIMITS = {"float32": 1e-6, "bfloat16": 2**-7}


def interpreted(*words: str) -> dict[str, Any]:
    """The errors of each case, from a process in which Triton interprets kernels."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.interpreted_norm", *words],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def kernel_errors() -> dict[str, dict[str, float]]:
    return interpreted()


@needs_triton
@pytest.mark.parametrize("dtype", LIMITS)
def test_the_kernels_equal_pytorch_in_fp64(kernel_errors, dtype):
    cases = {n: errors for n, errors in kernel_errors.items() if n.endswith(dtype)}
    assert len(cases) == 16
    for name, errors in cases.items():
        for tensor, off in errors.items():
            limit = 1e-6 if tensor in ("weight", "bias") else LIMITS[dtype]
            assert off < limit, (name, tensor, off)


@pytest.mark.slow
@needs_triton
def test_a_network_has_the_eager_gradient_also_recomputed_and_sharded():
    found = interpreted("network")
    assert found.keys() == {"none", "selective", "full", "sharded"}
    for form, off in found.items():
        assert off < 1e-5, (form, off)


@needs_triton
def test_the_distribution_function_is_as_exact_as_fp32():
    """The polynomial of the kernel in fp32 arithmetic, against the C library's ``erfc`` in fp64."""
    source = (ROOT / "model/network/fused_norm.py").read_text()
    body = source.split("def _normal(x):")[1].split('fp32."""\n')[1].split("\n\n\n")[0]
    lines = [line.strip() for line in body.splitlines()]
    names = {"tl": torch, "x": torch.linspace(-12, 12, 48001)}
    # torch.where, exp2 and abs have the names and meaning of Triton's.
    exec("\n".join(line for line in lines if not line.startswith("return")), names)
    found = torch.where(names["x"] > 0, 1.0 - names["tail"], names["tail"]).double()
    expected = torch.tensor([0.5 * math.erfc(-x / math.sqrt(2)) for x in names["x"].tolist()])
    off = (found - expected.double()).abs()
    assert off.max() < 4e-7
    near = names["x"].abs() < 6
    assert (off / expected.double())[near].max() < 4e-6


@needs_triton
@pytest.mark.parametrize("gelu", [True, False])
def test_a_compiled_graph_holds_the_kernels_without_a_break(gelu):
    from model.network.fused_norm import fused_norm

    calls: list[str] = []

    def record(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        calls.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        outputs = [
            node.meta["val"] if isinstance(node, torch.fx.Node) else node
            for node in next(iter(reversed(graph.graph.nodes))).args[0]
        ]
        return make_boxed_func(
            lambda *_: [
                torch.zeros(v.shape, dtype=v.dtype) if isinstance(v, torch.Tensor) else v
                for v in outputs
            ]
        )

    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, w, b: fused_norm(x * 2, w, b, 1e-5, gelu)[0] * 2,
        fullgraph=True,
        backend=aot_autograd(fw_compiler=record, bw_compiler=record),
    )
    x = torch.randn(4, 96, dtype=torch.bfloat16, requires_grad=True)
    weight, bias = (torch.randn(96, requires_grad=True) for _ in range(2))
    compiled(x, weight, bias).sum().backward()
    assert calls.count("triton_kernel_wrapper_functional") == 2
    assert "beit3.fused_norm.default" not in calls
    torch._dynamo.reset()


def test_a_cpu_computes_as_before():
    assert norm_kernel(torch.device("cpu")) == "eager"
    norm = SubLayerNorm(24, gelu=True)
    nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 24)
    plain = nn.functional.layer_norm(nn.functional.gelu(x), (24,), norm.weight, norm.bias, 1e-5)
    assert torch.equal(norm(x), plain)


def test_only_a_network_with_sub_layer_norms_has_them():
    for config, count in ((RELEASED, 4 * RELEASED.depth), (SHARED, 0)):
        made = [m for m in network(config).modules() if isinstance(m, SubLayerNorm)]
        assert len(made) == count
        assert sum(m.gelu for m in made) * 2 == count
