"""The mean of the weights against torch's, and the best weights through a saved state."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.finetuning.kept_weights import KeptWeights

DECAY = 0.9


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


def take_step(trained, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_the_mean_is_torch_s_of_the_same_decay_from_the_first_weights_on():
    kept = KeptWeights(network(), DECAY)
    theirs = AveragedModel(kept.network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    theirs.update_parameters(kept.network)  # its first call copies
    for seed in range(5):
        take_step(kept.network, seed)
        kept.update_average()
        theirs.update_parameters(kept.network)
        for ours, mean in zip(kept.averaged.parameters(), theirs.module.parameters(), strict=True):
            torch.testing.assert_close(ours, mean)
    assert kept.evaluated is kept.averaged
    assert not any(p.requires_grad for p in (*kept.averaged.parameters(), *kept.best.parameters()))


def test_without_a_decay_the_trained_weights_are_evaluated():
    kept = KeptWeights(network(), None)
    take_step(kept.network, 1)
    kept.update_average()
    assert kept.evaluated is kept.network and kept.averaged is None
    assert not any("averaged" in name for name in kept.state_dict())


@pytest.mark.parametrize("decay", [None, DECAY])
def test_the_best_weights_are_the_evaluated_ones_of_the_largest_value(decay):
    kept, best = KeptWeights(network(), decay), {}
    values = [-math.inf, math.nan, -3.0, 0.2, 0.1, math.nan, 0.7, 0.7, 0.5]
    expected = [False, False, True, True, False, False, True, False, False]
    for step, (value, is_best) in enumerate(zip(values, expected, strict=True), start=1):
        take_step(kept.network, step)
        kept.update_average()
        assert kept.keep_if_best(value, step) == is_best
        if is_best:
            best = copy.deepcopy(kept.evaluated.state_dict())
    assert (int(kept.best_step), float(kept.best_value)) == (7, 0.7)
    for name, tensor in kept.best.state_dict().items():
        assert torch.equal(tensor, best[name]), name


@pytest.mark.parametrize("decay", [None, DECAY])
def test_a_training_goes_on_from_a_saved_state_as_without_a_stop(decay, tmp_path):
    values = [0.3, 0.5, 0.4, 0.45, 0.6]
    whole = KeptWeights(network(), decay)
    for step, value in enumerate(values, start=1):
        take_step(whole.network, step)
        whole.update_average()
        whole.keep_if_best(value, step)
        if step == 3:
            torch.save(whole.state_dict(), tmp_path / "state.pt")
    again = KeptWeights(network(), decay)
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert float(again.best_value) == 0.5 and int(again.best_step) == 2
    assert not again.keep_if_best(0.45, 3)
    for step, value in enumerate(values[3:], start=4):
        take_step(again.network, step)
        again.update_average()
        again.keep_if_best(value, step)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_the_trained_weights_alone_are_trained():
    kept = KeptWeights(network(), DECAY)
    count = sum(p.numel() for p in network().parameters())
    assert sum(p.numel() for p in kept.parameters() if p.requires_grad) == count
    assert {name.partition(".")[0] for name in kept.state_dict()} == {
        "network", "averaged", "best", "best_value", "best_step",
    }  # fmt: skip
