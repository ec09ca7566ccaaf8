"""The step against torch's clipping and AdamW, and what it does with a gradient that is no number.

``tests/pipelines/finetune/test_workers.py`` runs it on several workers.
"""

import copy
import math

import pytest
import torch
from torch import nn

from model.finetuning.step import finetune_step

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def built():
    """A network, one of whose layers has no part in the loss."""
    torch.manual_seed(0)
    return nn.ModuleDict({"used": nn.Linear(3, 2), "rest": nn.Linear(2, 2)}).double()


def optimizer_of(network):
    groups = [
        {"params": [p for n, p in network.named_parameters() if "bias" in n], "lr_scale": 0.25},
        {"params": [p for n, p in network.named_parameters() if "bias" not in n], "lr_scale": 2.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=0.1)


def backward_of(network, factor=1.0):
    """Adds the gradient in two parts, as two micro-batches."""

    def backward():
        sums = {"loss": torch.zeros(()), "accuracy": torch.tensor(3)}
        for part in X.split(4):
            loss = (network["used"](part) ** 2).sum() * factor
            (loss / len(X)).backward()
            sums["loss"] = sums["loss"] + loss.detach()
        return sums

    return backward


@pytest.mark.parametrize("max_grad_norm", [None, 0.05, 1e3])
def test_steps_equal_those_of_torch_s_clipping_and_adamw(max_grad_norm):
    network = built()
    theirs = copy.deepcopy(network)
    optimizer, other = optimizer_of(network), optimizer_of(theirs)
    for number in range(3):
        lr = 0.01 * (number + 1)
        found = finetune_step(
            network,
            optimizer,
            backward_of(network),
            lr=lr,
            num_examples=len(X),
            max_grad_norm=max_grad_norm,
        )
        other.zero_grad()
        loss = (theirs["used"](X) ** 2).sum(1).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm or math.inf)
        for group in other.param_groups:
            group["lr"] = lr * group["lr_scale"]
        other.step()
        assert found.means == pytest.approx({"loss": loss.item(), "accuracy": 0.5})
        assert found.grad_norm == pytest.approx(norm.item()) and not found.skipped
        for name, parameter in theirs.named_parameters():
            torch.testing.assert_close(network.get_parameter(name), parameter)


def test_weights_without_a_part_in_the_loss_stay_and_have_a_state_in_the_optimizer():
    """A training goes on from a checkpoint, which has a state of every parameter."""
    network = built()
    optimizer, before = optimizer_of(network), copy.deepcopy(network["rest"].state_dict())
    step = {"lr": 0.1, "num_examples": len(X), "max_grad_norm": None}
    for _ in range(3):
        finetune_step(network, optimizer, backward_of(network), **step)
    for name, tensor in network["rest"].state_dict().items():
        assert torch.equal(tensor, before[name])
    states = optimizer.state_dict()["state"]
    assert states.keys() == set(range(4))
    assert {float(state["step"]) for state in states.values()} == {1, 3}


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_step_without_a_finite_gradient_changes_nothing(factor):
    network = built()
    optimizer = optimizer_of(network)
    step = {"lr": 0.1, "num_examples": len(X), "max_grad_norm": None}
    finetune_step(network, optimizer, backward_of(network), **step)
    before = copy.deepcopy([network.state_dict(), optimizer.state_dict()["state"]])
    found = finetune_step(network, optimizer, backward_of(network, factor), **step)
    assert found.skipped and not math.isfinite(found.means["loss"])
    torch.testing.assert_close([network.state_dict(), optimizer.state_dict()["state"]], before)
    assert not finetune_step(network, optimizer, backward_of(network), **step).skipped
    assert all(p.isfinite().all() for p in network.parameters())
