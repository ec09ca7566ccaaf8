"""The same step for 1, 2 and 4 workers and any micro-batches, in float64."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.finetuning import class_texts
from model.finetuning.layer_decay import parameter_groups
from model.finetuning.step import finetune_step
from model.training.parallel import broadcast_weights
from orchestration.storage.store import Store
from pipelines.finetune.feed import TaskFeed
from pipelines.finetune.predicting import Evaluator, Predictor
from pipelines.finetune.views import AugmentParams
from tests.committing import commit_tables
from tests.pipelines.finetune.examples import TASKS, builder, examples, network_of
from tests.processes import run_processes

BATCH, SUBSTREAMS, NUM_STEPS = 8, 4, 2
EXACT = torch.autocast("cpu", enabled=False)
CPU = torch.device("cpu")


def run(kind, folder, rank, num_workers, micro_batch):
    """Measurements of some steps, the weights after them, and metrics of the split."""
    class_texts._CHUNK = 2
    built = builder(kind)
    table = examples(kind, 21)
    name = folder / f"{kind}-{num_workers}-{micro_batch}-{rank}"
    dataset = commit_tables(Store(name), [table], row_group_rows=8)
    samples = np.array([len(t) for t in table["texts"].to_pylist()]) if built.task.by_text else 1
    network = network_of(built)
    if rank:
        with torch.no_grad():
            network.network.blocks[0].experts.vision.fc1.weight.zero_()
    broadcast_weights(network)
    groups = parameter_groups(
        network.named_parameters(), num_layers=3, layer_decay=0.8, weight_decay=0.05
    )
    optimizer = torch.optim.AdamW(groups, lr=0.0, eps=1e-3)
    feed = TaskFeed(
        dataset, built.columns, built.training(AugmentParams(), 0.3, 1),
        np.broadcast_to(samples, 21).astype(np.int64), batch_size=BATCH, micro_batch=micro_batch,
        num_substreams=SUBSTREAMS, shuffle_window=2, seed=0, rank=rank, num_workers=num_workers,
    )  # fmt: skip
    found = []
    for step in range(NUM_STEPS):
        batches = [exact(batch) for batch in feed.step(step)]
        network.train()
        result = finetune_step(
            network,
            optimizer,
            lambda batches=batches: built.task.backward(network, batches, BATCH, EXACT),
            lr=0.01,
            num_examples=BATCH,
            max_grad_norm=1.0,
        )
        assert not result.skipped
        found.append({**result.means, "grad_norm": result.grad_norm})
    spoiled = skipped_step(network, optimizer, rank, num_workers)
    predictor = Predictor(built.task, built, list(built.numbers), dataset, 3)
    metrics = Evaluator(predictor, rank, num_workers)(network.float(), EXACT)
    return found, network.double().state_dict(), metrics, spoiled


def exact(batch):
    batch = batch.to(CPU)
    images, scale = batch.images, batch.residual_scale
    targets = batch.targets
    return replace(
        batch,
        images=None if images is None else images.double(),
        residual_scale=None if scale is None else scale.double(),
        targets=targets.double()
        if targets is not None and targets.is_floating_point()
        else targets,
    )


def skipped_step(network, optimizer, rank, num_workers):
    """Whether a step is skipped of which the last worker alone has a gradient that is none."""
    before = [parameter.detach().clone() for parameter in network.parameters()]

    def backward():
        factor = math.nan if rank == num_workers - 1 else 1.0
        loss = sum((p * factor).sum() for p in network.parameters())
        loss.backward()
        return {"loss": torch.zeros(())}

    result = finetune_step(
        network, optimizer, backward, lr=0.1, num_examples=BATCH, max_grad_norm=None
    )
    pairs = zip(before, network.parameters(), strict=True)
    return result.skipped and all(torch.equal(one, other) for one, other in pairs)


def worker(rank: int, folder: Path, num_workers: int) -> None:
    for kind in TASKS:
        for micro_batch in (1, 2):
            found = run(kind, folder, rank, num_workers, micro_batch)
            torch.save(found, folder / f"{kind}-{micro_batch}-{rank}.pt")


def check(found, expected):
    steps, weights, metrics, spoiled = found
    for one, other in zip(steps, expected[0], strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    for name, tensor in expected[1].items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert metrics == pytest.approx(expected[2], rel=1e-4)  # predicted in float32
    assert spoiled and expected[3]


@pytest.mark.parametrize("kind", TASKS)
def test_a_step_is_the_same_for_any_micro_batches(kind, tmp_path):
    whole = run(kind, tmp_path, 0, 1, BATCH)
    for micro_batch in (1, 3):
        check(run(kind, tmp_path, 0, 1, micro_batch), whole)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 4])
def test_a_step_is_the_same_for_any_workers(tmp_path, num_workers):
    run_processes(num_workers, worker, tmp_path, num_workers)
    for kind in TASKS:
        expected = run(kind, tmp_path / "whole", 0, 1, BATCH)
        for rank in range(num_workers):
            for micro_batch in (1, 2):
                check(torch.load(tmp_path / f"{kind}-{micro_batch}-{rank}.pt"), expected)
