"""Results on a GPU against the CPU; skipped on machines without one."""

import copy
from itertools import permutations

import pytest
import torch

from model import BEiT3, BEiT3Config
from model.network.layer_norm import SubLayerNorm, norm_kernel
from model.training.batch import MicroBatch
from model.training.color_jitter import jitter_colors
from model.training.cross_entropy import cross_entropy_sum
from model.training.float8 import unavailable, use_float8
from model.training.objectives import complete_loss_weights, predict
from model.training.optimizer import adamw
from model.training.step import train_step
from tests.model.networks import RELEASED, SHARED, network
from tokenizer.vqkd import VQKD, VQKDConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FORMS = pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
GPU, CPU = torch.device("cuda"), torch.device("cpu")
FP32 = torch.autocast("cuda", torch.bfloat16, enabled=False)
BF16 = torch.autocast("cuda", torch.bfloat16)


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def batches(config: BEiT3Config, size: int = 4, length: int = 12) -> list[MicroBatch]:
    """A micro-batch of each stream, pairs with padding, all with stochastic depth."""
    generator = torch.Generator().manual_seed(0)

    def scale() -> torch.Tensor:
        return (torch.rand(config.depth, 2, size, generator=generator) < 0.8).float() / 0.8

    def image(batch: MicroBatch) -> MicroBatch:
        side, num = config.image_size, config.num_patches
        batch.images = torch.randn(size, 3, side, side, generator=generator)
        batch.image_mask = torch.rand(size, num, generator=generator) < 0.4
        batch.codes = torch.randint(0, config.num_codes, (size, num), generator=generator)
        return batch

    def text(batch: MicroBatch) -> MicroBatch:
        ids = torch.randint(4, config.vocab_size, (size, length), generator=generator)
        batch.text_ids, batch.text_targets = ids, ids.flip(0)
        batch.text_mask = torch.rand(size, length, generator=generator) < 0.5
        return batch

    made = [
        image(MicroBatch("image", residual_scale=scale())),
        text(MicroBatch("text", residual_scale=scale())),
        image(text(MicroBatch("pair", residual_scale=scale()))),
    ]
    made[2].text_padding = torch.arange(length) >= torch.tensor([[12], [9], [5], [12]])[:size]
    return made


def gradients(
    made: BEiT3, batch: MicroBatch, autocast: torch.autocast
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and the gradient of every parameter, copied to the CPU in fp32."""
    made.zero_grad(set_to_none=True)
    device = next(made.parameters()).device
    with autocast:
        predictions = predict(made, batch.to(device))
    total = torch.stack([p.loss_sum for p in predictions.values()]).sum()
    total.backward()
    return float(total.detach()), {
        name: parameter.grad.float().cpu().clone()
        for name, parameter in made.named_parameters()
        if parameter.grad is not None
    }


def angle(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Return the cosine between two gradients over all parameters."""
    assert found.keys() == expected.keys()
    one = torch.cat([found[name].flatten() for name in expected])
    two = torch.cat([expected[name].flatten() for name in expected])
    return float(torch.nn.functional.cosine_similarity(one, two, dim=0))


def test_colors_change_to_the_same_bytes():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, 33, 47, 3), generator=generator).byte()
    operations = torch.tensor(list(permutations(range(3))) * 2)
    factors = 0.6 + 0.8 * torch.rand(12, 3, generator=generator)
    found = jitter_colors(pixels.to(GPU), operations.to(GPU), factors.to(GPU))
    assert torch.equal(found.cpu(), jitter_colors(pixels, operations, factors))


@FORMS
@pytest.mark.parametrize("stream", [0, 1, 2], ids=["image", "text", "pair"])
def test_fp32_equals_the_cpu(config, stream):
    made = network(config)
    batch = batches(config)[stream]
    loss, expected = gradients(made, batch, FP32)
    found_loss, found = gradients(made.to(GPU), batch, FP32)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        off = (found[name] - gradient).norm() / gradient.norm().clamp(min=1e-3)
        assert off < 1e-3, f"{name}: {off:.1e}"


@FORMS
@pytest.mark.parametrize("stream", [0, 1, 2], ids=["image", "text", "pair"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_bf16_is_close_to_fp32(config, stream, compiled):
    made = network(config).to(GPU)
    batch = batches(config)[stream]
    loss, expected = gradients(made, batch, FP32)
    if compiled:
        torch._dynamo.reset()
        for block in made.blocks:
            block.compile(fullgraph=True)
    found_loss, found = gradients(made, batch, BF16)
    assert found_loss == pytest.approx(loss, rel=0.02)
    assert angle(found, expected) > 0.99


@FORMS
@pytest.mark.parametrize("recomputing", ["selective", "full"])
def test_activation_checkpointing_changes_no_gradient(config, recomputing):
    made = network(config).to(GPU)
    batch = batches(config)[2]
    _, expected = gradients(made, batch, BF16)
    made.activation_checkpointing = recomputing
    _, found = gradients(made, batch, BF16)
    assert angle(found, expected) > 0.9999


@FORMS
def test_a_step_updates_the_weights_as_on_the_cpu(config):
    results = []
    for device in (CPU, GPU):
        made = network(config).to(device)
        optimizer = adamw(made, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-3)
        off = torch.autocast(device.type, torch.bfloat16, enabled=False)
        for _ in range(2):
            result = train_step(
                made,
                optimizer,
                batches(config),
                lr=1e-2,
                loss_weights=complete_loss_weights({}),
                max_grad_norm=1.0,
                autocast=off,
            )
        results.append((result, {n: p.detach().cpu() for n, p in made.named_parameters()}))
    (cpu, expected), (gpu, found) = results
    assert gpu.loss == pytest.approx(dict(cpu.loss), rel=1e-4)
    assert gpu.accuracy == pytest.approx(dict(cpu.accuracy), abs=0.05)
    assert gpu.grad_norm == pytest.approx(cpu.grad_norm, rel=1e-3)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-2, atol=1e-3, msg=name)


@FORMS
def test_no_micro_batch_synchronizes_with_the_gpu(config):
    """Nothing from pinned memory to gradients waits for a number from the GPU."""
    made = network(config).to(GPU)
    pinned = [batch.pinned() for batch in batches(config)]
    gradients(made, pinned[0], BF16)  # the first call may wait while it sets up
    made.zero_grad(set_to_none=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in pinned:
            with BF16:
                predictions = predict(made, batch.to(GPU))
            torch.stack([p.loss_sum for p in predictions.values()]).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_fused_optimizer_continues_from_its_state():
    made = network(SHARED).to(GPU)
    optimizer = adamw(made, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    step = {
        "lr": 1e-3,
        "loss_weights": complete_loss_weights({}),
        "max_grad_norm": 3.0,
        "autocast": BF16,
    }
    train_step(made, optimizer, batches(SHARED), **step)
    other = copy.deepcopy(made)
    restored = adamw(other, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train_step(made, optimizer, batches(SHARED), **step)
    train_step(other, restored, batches(SHARED), **step)
    for one, two in zip(made.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_codes_equal_those_of_the_cpu():
    """Rounding may choose between two nearly equally near codes: a few in a thousand."""
    torch.manual_seed(0)
    config = VQKDConfig(32, 8, 64, 2, 2, 1, 64, 16, 24)
    tokenizer = VQKD(config).to(GPU)
    images = torch.rand(64, 3, 32, 32) * 2 - 1
    target = torch.randn(64, 16, 24)
    for step in range(3):
        with BF16:
            distilled = tokenizer(
                images.to(GPU), target.to(GPU), torch.Generator().manual_seed(step)
            )
        distilled.loss.backward()
        assert torch.isfinite(distilled.loss)
    tokenizer.eval()
    found = tokenizer.encode(images.to(GPU)).cpu()
    expected = tokenizer.to(CPU).encode(images)
    assert (found == expected).float().mean() > 0.99


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_the_summed_cross_entropy_equals_pytorch_s(dtype, unit):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(700, 9000, generator=generator) * 3).to(dtype)
    targets = torch.randint(0, 9000, (700,), generator=generator)
    ours = logits.to(GPU).requires_grad_()
    loss, is_correct, _ = cross_entropy_sum(ours * 1, targets.to(GPU))
    loss.backward()
    theirs = logits.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(theirs, targets, reduction="sum")
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert torch.equal(is_correct.cpu(), logits.argmax(-1) == targets)
    torch.testing.assert_close(ours.grad.cpu().double(), theirs.grad, rtol=4 * unit, atol=2e-6)


def _norm_results(norm: SubLayerNorm, x: torch.Tensor, gradient: torch.Tensor, run=None):
    """Return the result and the gradients of input, weight and bias."""
    x = x.detach().clone().requires_grad_()
    norm.zero_grad(set_to_none=True)
    y = (run or norm)(x)
    y.backward(gradient)
    return y.detach(), x.grad, norm.weight.grad.clone(), norm.bias.grad.clone()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("shape", [(3, 197, 3072), (2, 77, 6144), (5, 1, 100), (1, 0, 96)])
@pytest.mark.parametrize("gelu", [True, False])
def test_the_fused_norm_equals_pytorch_s(gelu, shape, dtype, unit, compiled):
    pytest.importorskip("triton")
    assert norm_kernel(GPU) == "fused"
    torch.manual_seed(0)
    norm = SubLayerNorm(shape[-1], gelu=gelu).to(GPU)
    torch.nn.init.normal_(norm.weight)
    x, gradient = (torch.randn(shape, device=GPU, dtype=dtype) for _ in range(2))
    torch._dynamo.reset()
    run = torch.compile(norm, fullgraph=True) if compiled else norm
    found = _norm_results(norm, x, gradient, run)
    again = _norm_results(norm, x, gradient, run)
    exact = copy.deepcopy(norm).double()  # fp64 is beyond the kernel: PyTorch computes it
    expected = _norm_results(exact, x.double(), gradient.double())
    for name, one, two, wanted in zip(
        ("result", "x", "weight", "bias"), found, again, expected, strict=True
    ):
        assert torch.equal(one, two), f"{name} differs from run to run"
        assert one.dtype == (dtype if name in ("result", "x") else torch.float32)
        bound = unit * 4 if name in ("result", "x") else 1e-5
        scale = float(wanted.abs().max()) if wanted.numel() else 1.0
        torch.testing.assert_close(
            one.double(), wanted, rtol=0, atol=bound * max(scale, 1e-6), msg=name
        )


def test_the_kernel_changes_a_bf16_gradient_no_more_than_rounding_does():
    made = network(RELEASED).to(GPU)
    batch = batches(RELEASED)[2]
    _, fused = gradients(made, batch, BF16)
    for module in made.modules():
        if isinstance(module, SubLayerNorm):
            module.fused = False
    _, eager = gradients(made, batch, BF16)
    assert angle(fused, eager) > 0.999
    _, exact = gradients(made, batch, FP32)
    assert angle(fused, exact) >= angle(eager, exact) - 1e-3


@FORMS
@pytest.mark.parametrize("stream", [0, 1, 2], ids=["image", "text", "pair"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_float8_is_close_to_fp32(config, stream, compiled):
    """Numbers of positions are no multiples of 16."""
    if fault := unavailable(GPU):
        pytest.skip(fault)
    made = network(config).to(GPU)
    batch = batches(config, size=3, length=11)[stream]
    loss, expected = gradients(made, batch, FP32)
    use_float8(made)
    if compiled:
        torch._dynamo.reset()
        for block in made.blocks:
            block.compile(fullgraph=True, dynamic=False)
    found_loss, found = gradients(made, batch, BF16)
    assert found_loss == pytest.approx(loss, rel=0.05)
    assert angle(found, expected) > 0.97


def test_the_optimizer_and_the_clipping_launch_few_kernels_and_never_synchronize():
    made = network(RELEASED).to(GPU)
    optimizer = adamw(made, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    for parameter in made.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()  # makes the state
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.profiler.profile(activities=activities) as profile:
            torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    launches = sum(event.count for event in profile.key_averages() if "LaunchKernel" in event.key)
    assert launches < len(list(made.parameters()))
