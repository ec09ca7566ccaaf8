"""The contrastive loss and its gradients for any number of workers and chunks, in fp64."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model import BEiT3
from model.finetuning.contrastive import contrastive_loss
from model.finetuning.feature_cache import backward_in_chunks
from model.finetuning.task_networks import ForRetrieval
from tests.model.networks import RELEASED
from tests.processes import run_processes

BATCH = 8


def network_and_batch():
    torch.manual_seed(0)
    network = ForRetrieval(BEiT3(RELEASED)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    images = torch.randn(BATCH, 3, 32, 32, dtype=torch.float64)
    return network, images, torch.randint(4, 60, (BATCH, 10))


def gradients(network) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def plain():
    """The mean over the batch by its definition, and all gradients, in one process."""
    network, images, ids = network_and_batch()
    image, text = network.encode_images(images), network.encode_texts(ids)
    scores = network.logit_scale.exp() * image @ text.T
    right = torch.arange(BATCH)
    loss = (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2
    loss.backward()
    return loss.detach(), gradients(network)


def run(num_workers: int, chunk: int | None, rank: int) -> tuple[torch.Tensor, dict]:
    """This worker's loss and gradients; ``chunk`` is the chunk's size with the feature cache."""
    network, images, ids = network_and_batch()
    mine = slice(rank * BATCH // num_workers, (rank + 1) * BATCH // num_workers)
    images, ids = images[mine], ids[mine]
    if chunk is None:
        image, text = network.encode_images(images), network.encode_texts(ids)
        loss = contrastive_loss(image, text, network.logit_scale)
        loss.backward()
    else:
        loss = backward_in_chunks(
            [
                partial(encode, network, some, words)
                for some, words in zip(images.split(chunk), ids.split(chunk), strict=True)
            ],
            network.logit_scale,
        )
    return loss.detach(), gradients(network)


def encode(network, images, ids):
    return network.encode_images(images), network.encode_texts(ids)


def worker(rank: int, folder: Path, num_workers: int) -> None:
    for chunk in (None, 1, 2):
        torch.save(run(num_workers, chunk, rank), folder / f"{rank}-{chunk}.pt")


def check(parts, expected) -> None:
    loss, wanted = expected
    torch.testing.assert_close(sum(part[0] for part in parts), loss, rtol=1e-9, atol=0)
    for name, gradient in wanted.items():
        found = sum(part[1][name] for part in parts)
        torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("chunk", [None, 1, 3, 8])
def test_one_worker_s_gradients_are_those_of_the_definition(chunk):
    check([run(1, chunk, 0)], plain())


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 4])
def test_the_gradients_of_all_workers_add_up_to_those_of_the_definition(tmp_path, num_workers):
    run_processes(num_workers, worker, tmp_path, num_workers)
    expected = plain()
    for chunk in (None, 1, 2):
        check([torch.load(tmp_path / f"{r}-{chunk}.pt") for r in range(num_workers)], expected)


def test_the_chunks_of_a_step_are_announced_before_their_backward():
    network, images, ids = network_and_batch()
    said: list[bool] = []
    backward_in_chunks(
        [
            partial(encode, network, some, words)
            for some, words in zip(images.split(3), ids.split(3), strict=True)
        ],
        network.logit_scale,
        said.append,
    )
    assert said == [False, False, True]
