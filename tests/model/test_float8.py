"""Float8 linear layers, emulated on the CPU; ``test_gpu.py`` runs the products of a GPU."""

import copy
import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

from model import BEiT3
from model.training import float8
from model.training.batch import MicroBatch
from model.training.float8 import float8_layers, misfit, unavailable, use_float8
from model.training.objectives import complete_loss_weights
from model.training.optimizer import adamw
from model.training.parallel import distribute
from model.training.step import StepResult, train_step
from tests.model.networks import RELEASED, SHARED, network
from tests.model.test_running import gradients
from tests.model.test_step import CONFIG, global_batch, rows
from tests.processes import run_processes

FORMS = pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
BF16 = torch.autocast("cpu", torch.bfloat16)
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)
STEPS = 30
TOLERANCE = 0.001
"Mean difference of the losses. Eight seeds had at most 0.0005; the last steps alone up to 0.003."


@pytest.fixture
def _torchao() -> None:
    pytest.importorskip("torchao", reason="needs torchao, which is not installed")


needs_torchao = pytest.mark.usefixtures("_torchao")


def fp32_batch() -> list[MicroBatch]:
    batches = global_batch()
    for batch in batches:
        for name, value in vars(batch).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(batch, name, value.float())
    return batches


def made(with_float8: bool) -> BEiT3:
    torch.manual_seed(0)
    result = BEiT3(CONFIG)
    if with_float8:
        use_float8(result, emulate=True)
    return result


def optimizer_of(trained: BEiT3) -> torch.optim.Optimizer:
    return adamw(trained, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)


def one_step(
    trained: BEiT3, optimizer: torch.optim.Optimizer, batches: list[MicroBatch], autocast=BF16
) -> StepResult:
    return train_step(
        trained, optimizer, batches,
        lr=1e-3, loss_weights=complete_loss_weights({}), max_grad_norm=1.0, autocast=autocast,
    )  # fmt: skip


@needs_torchao
@FORMS
def test_the_blocks_linear_layers_change_and_no_weight_does(config):
    plain = network(config)
    changed = copy.deepcopy(plain)
    use_float8(changed, emulate=True)
    linear = [
        name
        for name, module in plain.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("blocks.")
    ]
    assert float8_layers(changed) == linear != []
    assert float8_layers(plain) == []
    before, after = plain.state_dict(), changed.state_dict()
    assert list(after) == list(before)
    for name, weight in before.items():
        assert after[name].dtype == weight.dtype
        assert torch.equal(after[name], weight), name


@needs_torchao
def test_it_learns_as_bf16_does_and_a_checkpoint_fits_both():
    """30 steps on one batch; after half of them, each network's state goes on in the other."""
    batches = fp32_batch()
    networks = {kind: made(kind == "float8") for kind in ("bf16", "float8")}
    optimizers = {kind: optimizer_of(one) for kind, one in networks.items()}
    losses: dict[str, list[float]] = {kind: [] for kind in networks}
    for step in range(STEPS):
        if step == STEPS // 2:
            states = {
                kind: copy.deepcopy((networks[kind].state_dict(), optimizers[kind].state_dict()))
                for kind in networks
            }
            for kind, other in (("bf16", "float8"), ("float8", "bf16")):
                networks[kind].load_state_dict(states[other][0], strict=True)
                optimizers[kind].load_state_dict(states[other][1])
        for kind, one in networks.items():
            result = one_step(one, optimizers[kind], batches)
            assert result.fault is None
            losses[kind].append(sum(result.loss.values()))
    words = {kind: f"{values[0]:.4f} -> {values[-1]:.4f}" for kind, values in losses.items()}
    pairs = zip(losses["float8"], losses["bf16"], strict=True)
    off = statistics.fmean(abs(a / b - 1) for a, b in pairs)
    assert off < TOLERANCE, (words, off)
    assert losses["float8"] != losses["bf16"]
    for values in losses.values():
        assert values[-1] < 0.85 * values[0], words
    assert {p.dtype for p in networks["float8"].parameters()} == {torch.float32}


@needs_torchao
@FORMS
def test_its_gradient_is_near_and_activation_checkpointing_does_not_change_it(config):
    plain = network(config)
    expected = gradients(plain, config)
    use_float8(plain, emulate=True)
    found = gradients(plain, config)
    one, two = (torch.cat([each[n].flatten() for n in expected]) for each in (found, expected))
    assert 0.99 < float(torch.cosine_similarity(one, two, dim=0)) < 0.99999
    for recomputing in ("selective", "full"):
        plain.activation_checkpointing = recomputing
        again = gradients(plain, config)
        assert all(torch.equal(again[name], found[name]) for name in found)


@pytest.mark.slow
@needs_torchao
def test_blocks_trace_into_one_graph_with_the_same_gradient():
    one = network(SHARED)
    use_float8(one, emulate=True)
    expected = gradients(one, SHARED)
    torch._dynamo.reset()
    for block in one.blocks:
        block.compile(fullgraph=True, backend="aot_eager", dynamic=False)
    found = gradients(one, SHARED)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def two_steps(sharding: str, rank: int, num_workers: int) -> list[tuple[float, float]]:
    """Return the loss and the gradient's norm of each step; micro-batches are always the same."""
    trained = made(True)
    distribute(trained, sharding)
    optimizer = optimizer_of(trained)
    mine = range(rank * 6 // num_workers, (rank + 1) * 6 // num_workers, 3)
    batches = [rows(batch, i, i + 3) for batch in fp32_batch() for i in mine]
    results = [one_step(trained, optimizer, batches, FP32) for _ in range(2)]
    return [(sum(result.loss.values()), result.grad_norm) for result in results]


def worker(rank: int, folder: Path) -> None:
    found = {sharding: two_steps(sharding, rank, 2) for sharding in ("none", "full")}
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
@needs_torchao
def test_copies_and_shards_take_the_steps_of_one_worker(tmp_path):
    run_processes(2, worker, tmp_path)
    expected = two_steps("none", 0, 1)
    for rank in range(2):
        for sharding, found in torch.load(tmp_path / f"{rank}.pt").items():
            assert found[0] == pytest.approx(expected[0], rel=1e-5), sharding
            # Sums in another order move some weights over a limit of rounding.
            assert found[1] == pytest.approx(expected[1], rel=5e-3), sharding


@pytest.mark.parametrize(
    ("installed", "gpu", "words"),
    [
        (False, (9, 0), "torchao is not installed; install the extra gpu"),
        (True, (8, 0), "A card has compute capability 8.0; float8 products need 8.9 or more"),
        (True, (8, 9), None),
        (True, (9, 0), None),
        (True, None, None),
    ],
)
def test_what_is_missing_is_named_before_a_training(monkeypatch, installed, gpu, words):
    spec = object() if installed else None
    monkeypatch.setattr(float8.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    found = unavailable()
    assert (found is None) == (words is None)
    assert words is None or words in str(found)


def test_a_network_that_cannot_have_it_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(float8.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match="float8: the device is cpu; float8 products need a GPU"):
        use_float8(BEiT3(CONFIG))
    odd = SHARED.named("tiny", ffn_width=100)
    assert misfit(odd) == "ffn_width = 100 is not a multiple of 16"
    assert misfit(CONFIG) is None
