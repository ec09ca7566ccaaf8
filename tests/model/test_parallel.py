"""Steps on two workers, with copies and with shards, against the same steps on one worker."""

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor

from model import BEiT3
from model.training.copies import different_copy
from model.training.objectives import complete_loss_weights
from model.training.optimizer import adamw
from model.training.parallel import distribute
from model.training.step import train_step
from tests.model.test_step import CONFIG, FP32, global_batch, rows
from tests.processes import run_processes

STEPS = 4
WEIGHTS = complete_loss_weights({})


def trained(folder: Path, sharding: str, rank: int, num_workers: int) -> None:
    """Take some steps, each on this worker's part of the global batch; save what results."""
    torch.manual_seed(rank)
    network = BEiT3(CONFIG).double()  # of which that of the first worker counts
    distribute(network, sharding)
    shard = next(network.parameters())
    if num_workers > 1:
        assert isinstance(shard, DTensor)
        assert (shard.to_local().numel() < shard.numel()) == (sharding == "full")
    optimizer = adamw(network, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    size = 6 // num_workers
    results = []
    for step in range(STEPS):
        mine = [rows(batch, rank * size, (rank + 1) * size) for batch in global_batch()]
        micros = [rows(batch, i, i + 2) for batch in mine for i in range(0, size, 2)]
        if step == 2 and rank == 0:  # a worker's bad sample makes all workers skip the step
            micros[0].images[0, 0, 0, 0] = torch.nan
        results.append(
            train_step(
                network, optimizer, micros,
                lr=1e-3, loss_weights=WEIGHTS, max_grad_norm=1.0, autocast=FP32,
            )
        )  # fmt: skip
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    dcp.save(state, checkpoint_id=folder / "checkpoint")
    plain = [
        vars(result) | {"samples": [each.is_finite.tolist() for each in result.samples]}
        for result in results
    ]
    torch.save(plain, folder / f"{rank}.pt")


def worker(rank: int, folder: Path, sharding: str) -> None:
    trained(folder, sharding, rank, 2)


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint into a network that is not spread over workers."""
    network = BEiT3(CONFIG).double()
    state = {"network": network.state_dict()}
    dcp.load(state, checkpoint_id=folder / "checkpoint", no_dist=True)
    return state["network"]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_workers_take_the_steps_of_one(tmp_path, sharding):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    trained(one, sharding, 0, 1)
    run_processes(2, worker, two, sharding)
    expected = torch.load(one / "0.pt")
    assert [result["fault"] for result in expected] == [None, None, "gradient", None]
    for rank in range(2):
        for found, wanted in zip(torch.load(two / f"{rank}.pt"), expected, strict=True):
            assert found["fault"] == wanted["fault"]
            if wanted["fault"] is None:
                assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-6)
                assert found["grad_norms"] == pytest.approx(wanted["grad_norms"], rel=1e-6)
                assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
                assert found["accuracy"] == pytest.approx(wanted["accuracy"])
    # Each worker knows which of its own samples were not finite; the pair has the image's pixels.
    finite = [[True, True], [True]]
    samples = [torch.load(two / f"{rank}.pt")[2]["samples"] for rank in range(2)]
    assert samples == [[[False, True], [True], *finite, [False, True], [True]], finite * 3]
    whole = loaded(one)
    for name, tensor in loaded(two).items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-5, atol=1e-9, msg=name)


def alter(network: BEiT3, rank: int) -> None:
    """Flip the last bit of one weight on the second of three workers."""
    weight = network.blocks[1].experts.language.fc2.weight
    local = weight.to_local() if isinstance(weight, DTensor) else weight
    if rank == 1:
        local.detach().view(torch.int32)[3, 5] ^= 1


def comparing(rank: int, folder: Path) -> None:
    found = []
    for sharding in ("none", "full"):
        network = BEiT3(CONFIG)
        distribute(network, sharding)
        found.append(different_copy(network))
        if sharding == "none":
            alter(network, rank)
        found.append(different_copy(network))
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
def test_a_copy_that_differs_in_one_bit_is_named_with_its_worker(tmp_path):
    run_processes(3, comparing, tmp_path)
    for rank in range(3):
        assert torch.load(tmp_path / f"{rank}.pt") == [
            None, ("blocks.1.experts.language.fc2.weight", [1]), None, None,
        ]  # fmt: skip


def test_one_worker_has_no_copies_to_compare():
    assert different_copy(BEiT3(CONFIG)) is None


def summing(rank: int, folder: Path) -> None:
    """Save the gradient's norm, and whether it has only values of bf16, for each way of summing."""
    found = {}
    for sharding, reduce_dtype in (("none", None), ("full", None), ("full", torch.bfloat16)):
        torch.manual_seed(0)
        network = BEiT3(CONFIG)
        distribute(network, sharding, None, reduce_dtype)
        optimizer = adamw(network, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
        # One micro-batch: several are added up in fp32.
        mine = [rows(global_batch()[2], rank * 3, rank * 3 + 3)]
        for batch in mine:
            batch.residual_scale = batch.residual_scale.float()
            batch.images = None if batch.images is None else batch.images.float()
        result = train_step(
            network, optimizer, mine,
            lr=1e-3, loss_weights=WEIGHTS, max_grad_norm=None, autocast=FP32,
        )  # fmt: skip
        gradients = [p.grad.to_local() for p in network.parameters()]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        rounded = all(torch.equal(g, g.bfloat16().float()) for g in gradients)
        found[sharding, reduce_dtype is None] = result.grad_norm, rounded
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
def test_gradients_are_summed_in_the_type_that_is_asked_for(tmp_path):
    run_processes(2, summing, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        exact = found["none", True][0]
        for (sharding, is_exact), (norm, rounded) in found.items():
            assert rounded == (not is_exact), sharding
            assert norm == pytest.approx(exact, rel=1e-5 if is_exact else 0.01)
