"""Steps of three workers that share four substreams, against the same steps of one worker."""

from pathlib import Path

import pytest
import torch

from model import BEiT3
from model.training.objectives import complete_loss_weights
from model.training.optimizer import adamw
from model.training.parallel import distribute
from model.training.step import train_step
from tests.pipelines.pretrain.test_feed import NETWORK, make_feed, text
from tests.processes import run_processes

__all__ = ["text"]

STEPS = 3
FP32 = torch.autocast("cpu", enabled=False)


def trained(folder: Path, words, sharding: str, micro_batch: int, rank: int, size: int) -> None:
    """Take some steps on the feed of one worker; save what they measured."""
    torch.manual_seed(0)
    network = BEiT3(NETWORK)
    distribute(network, sharding)
    optimizer = adamw(network, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    feed = make_feed(folder / f"{size}-{rank}", words, rank, size, micro_batch)
    results = [
        train_step(
            network, optimizer, feed.step(step),
            lr=1e-3, loss_weights=complete_loss_weights({}), max_grad_norm=1.0, autocast=FP32,
        )
        for step in range(STEPS)
    ]  # fmt: skip
    torch.save([vars(result) for result in results], folder / f"{size}-{rank}.pt")


def worker(rank: int, folder: Path, words, sharding: str, micro_batch: int) -> None:
    trained(folder, words, sharding, micro_batch, rank, 3)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "full"])
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_workers_with_unequal_numbers_of_samples_take_the_steps_of_one(
    tmp_path, text, sharding, micro_batch
):
    trained(tmp_path, text, sharding, 8, 0, 1)
    run_processes(3, worker, tmp_path, text, sharding, micro_batch)
    expected = torch.load(tmp_path / "1-0.pt")
    for rank in range(3):
        for found, wanted in zip(torch.load(tmp_path / f"3-{rank}.pt"), expected, strict=True):
            assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
            assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
            assert found["accuracy"] == pytest.approx(wanted["accuracy"])
