"""Compilation, checkpointing, sharding and bf16 must not change the network's results."""

import copy
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from model import BEiT3, BEiT3Config
from model.network.beit3 import Encoded
from model.training.compiling import compile_blocks
from tests.model.networks import RELEASED, SHARED, network, random_images
from tests.processes import run_processes

FORMS = pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
WORDS = torch.arange(4, 18).reshape(2, 7)
PADDING = torch.arange(7) >= torch.tensor([7, 4])[:, None]


def samples(config: BEiT3Config) -> list[dict[str, torch.Tensor]]:
    """An image, a text and a pair, with stochastic depth."""
    generator = torch.Generator().manual_seed(1)
    side = config.image_size
    image = {"images": torch.randn(2, 3, side, side, generator=generator)}
    text = {"text_ids": WORDS, "text_padding": PADDING}
    scale = (torch.rand(config.depth, 2, 2, generator=generator) < 0.7).float() / 0.7
    return [{**sample, "residual_scale": scale} for sample in (image, text, image | text)]


def loss(made: BEiT3, config: BEiT3Config) -> torch.Tensor:
    """A loss over all samples that uses both heads."""
    total = torch.zeros(())
    for sample in samples(config):
        encoded: Encoded = made(**sample)
        if "text_ids" in sample:
            total = total + made.mlm_head(encoded.text[~PADDING]).float().square().mean()
        if "images" in sample:
            total = total + made.mim_head(encoded.patches).float().square().mean()
    return total


def gradients(made: BEiT3, config: BEiT3Config) -> dict[str, torch.Tensor]:
    made.zero_grad(set_to_none=True)
    loss(made, config).backward()
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in made.named_parameters()
    }


def assert_alike(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name, **tolerance)


@FORMS
@pytest.mark.parametrize("recomputing", ["selective", "full"])
def test_activation_checkpointing_changes_no_gradient(config, recomputing):
    made = network(config)
    expected = gradients(made, config)
    made.activation_checkpointing = recomputing
    assert_alike(gradients(made, config), expected, rtol=0, atol=0)


def kept(made: BEiT3, config: BEiT3Config) -> int:
    """Bytes of the tensors that the backward of some images needs, weights included."""
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made(images=random_images(config)).hidden.sum()
    return sum(seen.values())


@FORMS
def test_activation_checkpointing_keeps_less_for_the_backward(config):
    made = network(config)
    plain = kept(made, config)
    made.activation_checkpointing = "full"
    assert kept(made, config) < plain / 2


@FORMS
def test_blocks_trace_into_one_graph_and_change_no_gradient(config):
    """Traces forward and backward as torch.compile does, without compiling kernels."""
    made = network(config)
    expected = gradients(made, config)
    torch._dynamo.reset()
    for block in made.blocks:
        block.compile(fullgraph=True, backend="aot_eager")
    assert_alike(gradients(made, config), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_blocks_recompute_within_as_many_graphs():
    """The gradients are those of the eager blocks that keep everything."""
    config = replace(SHARED, depth=1, fusion_layers=1)
    expected = gradients(network(config), config)
    numbers, memory = {}, {}
    for recomputing in ("none", "selective", "full"):
        made = network(config)
        made.activation_checkpointing = recomputing
        torch._dynamo.reset()
        graphs = CompileCounterWithBackend("aot_eager")
        compile_blocks(made, backend=graphs)
        assert_alike(gradients(made, config), expected, rtol=1e-4, atol=1e-5)
        numbers[recomputing] = graphs.frame_count
        memory[recomputing] = kept(made, config)
    assert numbers["none"] == numbers["selective"] == numbers["full"] > 0
    assert memory["full"] < memory["selective"] < memory["none"]


@pytest.mark.slow
def test_compiled_blocks_give_the_same_hidden_states():
    made, sample = network(SHARED), samples(SHARED)[2]
    with torch.no_grad():
        expected = made(**sample).hidden
        torch._dynamo.reset()
        for block in made.blocks:
            block.compile(fullgraph=True)
        torch.testing.assert_close(made(**sample).hidden, expected, rtol=1e-4, atol=1e-4)


@FORMS
def test_bf16_is_close_to_fp32(config):
    made = network(config)
    with torch.no_grad():
        expected = float(loss(made, config))
        with torch.autocast("cpu", torch.bfloat16):
            assert float(loss(made, config)) == pytest.approx(expected, rel=0.02)
            assert made(**samples(config)[2]).hidden.dtype == torch.float32


@FORMS
def test_the_residual_stream_is_fp32_and_what_branches_keep_is_bf16(config):
    made = network(config)
    streams: set[torch.dtype] = set()
    normed: set[torch.dtype] = set()
    for block in made.blocks:
        block.register_forward_pre_hook(
            lambda _, inputs: streams.update(p.dtype for p in inputs[0] if p is not None)
        )
        for module in block.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.register_forward_hook(lambda _, __, output: normed.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        for sample in samples(config):
            made(**{**sample, "residual_scale": None})
            made(**sample)
    assert streams == {torch.float32}
    assert normed == {torch.bfloat16}


@pytest.mark.slow
@FORMS
def test_blocks_sharded_over_two_workers_change_no_gradient(config):
    """FSDP2, wrapped per block: each worker holds half of every parameter, also to recompute."""
    run_processes(2, _sharded_worker, config)


def _sharded_worker(rank: int, config: BEiT3Config) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    plain = network(config)
    made = copy.deepcopy(plain)
    for module in (*made.blocks, made.mlm_head, made.mim_head):
        fully_shard(module, mesh=mesh)
    fully_shard(made, mesh=mesh)
    name, parameter = next(iter(made.blocks.named_parameters()))
    assert parameter.to_local().numel() < parameter.numel(), name
    expected = gradients(plain, config)
    for recomputing in ("none", "selective", "full"):
        made.activation_checkpointing = recomputing
        made.zero_grad()
        loss(made, config).backward()
        found = {
            n: torch.zeros(p.shape) if p.grad is None else p.grad.full_tensor()
            for n, p in made.named_parameters()
        }
        assert_alike(found, expected, rtol=1e-4, atol=1e-6)
