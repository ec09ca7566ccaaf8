"""Masks of captions, their loss, and which tokens of a global batch count."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from model.finetuning.captioning import caption_losses, kept_tokens, mask_captions

MASK_ID = 500
LENGTHS = (2, 3, 4, 7, 10, 15, 24)


def captions(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Captions of the lengths in turn, padded to 24 tokens."""
    lengths = np.array(LENGTHS)[np.arange(number) % len(LENGTHS)]
    padding = np.arange(24) >= lengths[:, None]
    ids = np.random.default_rng(0).integers(4, MASK_ID, (number, 24))
    ids[:, 0] = 0
    ids[np.arange(number), lengths - 1] = 2
    return np.where(padding, 1, ids), padding


@pytest.mark.parametrize("ratio", [0.0, 0.15, 0.6, 0.7, 0.99, 1.0])
def test_the_number_of_masked_tokens_is_that_of_the_authors(ratio):
    ids, padding = captions(70)
    masked, chosen = mask_captions(ids, padding, ratio, MASK_ID, 1, 5, np.arange(70))
    for row in range(70):
        length = LENGTHS[row % len(LENGTHS)]
        assert chosen[row].sum() == max(min(int(length * ratio + 0.5), length - 1), 1)
        assert not chosen[row, 0] and not chosen[row, length:].any()
    assert (masked[~chosen] == ids[~chosen]).all()
    ends = np.take_along_axis(chosen, (~padding).sum(1)[:, None] - 1, axis=1)
    assert ends.any() and (ratio > 0.9 or not ends.all())


def test_masked_tokens_become_mask_random_pieces_or_stay_and_each_place_is_as_likely():
    ids, padding = np.full((4000, 11), 7), np.zeros((4000, 11), bool)
    masked, chosen = mask_captions(ids, padding, 0.55, MASK_ID, 3, 0, np.arange(4000))
    assert (chosen.sum(1) == 6).all()
    assert np.abs(chosen[:, 1:].mean(0) - 0.6).max() < 0.03
    found = masked[chosen]
    assert abs((found == MASK_ID).mean() - 0.8) < 0.01
    others = found[(found != MASK_ID) & (found != 7)]
    assert abs(len(others) / len(found) - 0.1) < 0.01
    assert others.min() >= 4 and others.max() <= MASK_ID - 1 and len(set(others)) > 400


def test_the_mask_of_a_caption_depends_on_its_slot_alone():
    ids, padding = captions(14)
    masked, chosen = mask_captions(ids, padding, 0.6, MASK_ID, 1, 5, np.arange(14))
    order = np.array([9, 2, 12])
    again = mask_captions(ids[order, :20], padding[order, :20], 0.6, MASK_ID, 1, 5, order)
    assert (again[0] == masked[order, :20]).all() and (again[1] == chosen[order, :20]).all()
    other = mask_captions(ids, padding, 0.6, MASK_ID, 1, 6, np.arange(14))[1]
    assert (other != chosen).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_is_the_divergence_from_the_smoothed_target(smoothing):
    """The authors' ``BertCaptioningLoss`` restated, its value and gradient."""
    torch.manual_seed(0)
    scores = torch.randn(20, 33, dtype=torch.float64).mul_(4).requires_grad_()
    targets = torch.randint(33, (20,))
    one_hot = F.one_hot(targets, 33).double()
    smooth = one_hot * (1 - smoothing) + (1 - one_hot) * smoothing / 32
    expected = F.kl_div(F.log_softmax(scores, dim=1), smooth, reduction="none").sum(1)
    found = caption_losses(scores, targets, smoothing)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(20, dtype=torch.float64)
    (mine,) = torch.autograd.grad((found * weights).sum(), scores)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), scores)
    torch.testing.assert_close(mine, theirs)
    if smoothing == 0:
        torch.testing.assert_close(found, F.cross_entropy(scores, targets, reduction="none"))
    assert caption_losses(scores.bfloat16(), targets, smoothing).dtype == torch.float32


NUM_TOKENS = 37


def tokens() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses, some of them equal, with slots and positions, in the order of a global batch."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.randint(12, (NUM_TOKENS,), generator=generator).double()
    places = torch.arange(NUM_TOKENS)
    return losses, places // 5, places % 5


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.99])
def test_the_largest_losses_are_dropped_whatever_the_order(ratio):
    losses, slots, positions = tokens()
    kept, number = kept_tokens(losses, slots, positions, ratio)
    expected = max(int(NUM_TOKENS * (1 - ratio)), 1)
    assert kept.sum() == number == expected
    smallest = losses.topk(expected, largest=False).values
    assert torch.equal(losses[kept].sort().values, smallest.sort().values)
    edge = losses[kept].max()
    equal = [bool(each) for each in kept[losses == edge]]
    assert equal == sorted(equal, reverse=True)  # of equal losses the first ones are kept
    order = torch.randperm(NUM_TOKENS)
    again, _ = kept_tokens(losses[order], slots[order], positions[order], ratio)
    assert torch.equal(again, kept[order])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_not_dropped(wrong):
    losses, slots, positions = tokens()
    losses[3] = wrong
    kept, number = kept_tokens(losses, slots, positions, 0.2)
    assert kept.all() and number == NUM_TOKENS


def worker(rank: int, folder: Path, num_workers: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=num_workers)
    mine = torch.arange(NUM_TOKENS)[rank * 20 : rank * 20 + 20]
    found = kept_tokens(*(each[mine] for each in tokens()), 0.2)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_workers_with_different_numbers_of_tokens_drop_those_that_one_would(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    mp.spawn(worker, (tmp_path, 2, port), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    kept, number = kept_tokens(*tokens(), 0.2)
    assert torch.equal(torch.cat([part[0] for part in parts]), kept)
    assert all(part[1] == number for part in parts)
