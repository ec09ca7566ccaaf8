"""The summed cross-entropy against PyTorch's own, in every type and for any chunk size."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training import cross_entropy
from model.training.cross_entropy import cross_entropy_sum


def both(logits: torch.Tensor, targets: torch.Tensor, factor: float = 1.0):
    """Return our loss and gradient, then PyTorch's in fp64."""
    ours = logits.clone().requires_grad_()
    # * 1 stands for a head: the backward must not overwrite the memory of a leaf.
    loss, is_correct, _ = cross_entropy_sum(ours * 1, targets)
    (loss * factor).backward()
    theirs = logits.double().requires_grad_()
    expected = F.cross_entropy(theirs, targets, reduction="sum")
    (expected * factor).backward()
    assert torch.equal(is_correct, logits.argmax(-1) == targets)
    return loss.detach(), ours.grad, expected.detach(), theirs.grad


@given(
    rows=st.integers(0, 40),
    classes=st.integers(1, 30),
    chunk=st.integers(1, 300),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_loss_and_gradient_equal_pytorch_s_for_any_chunk_size(rows, classes, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 5
    targets = torch.randint(0, classes, (rows,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "_CPU_CHUNK", chunk)
        loss, gradient, expected, expected_gradient = both(logits, targets, factor=-0.3)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_narrow_types_are_summed_in_fp32(dtype, unit):
    """Includes confident predictions, whose gradient is the small difference to 1."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3000, 900, generator=generator)
    targets = torch.randint(0, 900, (3000,), generator=generator)
    logits[torch.arange(2000), targets[:2000]] += 12
    logits = logits.to(dtype)
    loss, gradient, expected, expected_gradient = both(logits, targets)
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=4 * unit, atol=2e-6)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e38, 3e38, 0.0]])
    loss, gradient, _, expected = both(logits, torch.tensor([0, 1]))
    assert float(loss) == 0.0
    torch.testing.assert_close(gradient.double(), expected)


def test_a_second_backward_is_refused():
    logits = torch.randn(4, 6, requires_grad=True)
    loss, _, _ = cross_entropy_sum(logits * 1, torch.zeros(4, dtype=torch.long))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward"):
        loss.backward()


def test_the_logits_are_unchanged_without_a_backward():
    logits = torch.randn(4, 6)
    before = logits.clone()
    cross_entropy_sum(logits, torch.zeros(4, dtype=torch.long))
    assert torch.equal(logits, before)
