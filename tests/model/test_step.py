"""The step: normalization over the global batch, the schedule, and non-finite gradients."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import BEiT3, BEiT3Config
from model.training.batch import MicroBatch
from model.training.objectives import complete_loss_weights
from model.training.optimizer import adamw, cosine_lr
from model.training.step import train_step

CONFIG = BEiT3Config(
    32,
    2,
    2,
    64,
    image_size=16,
    patch_size=4,
    fusion_layers=1,
    vocab_size=40,
    num_codes=12,
    max_text_length=16,
)
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)
WEIGHTS = complete_loss_weights({})


def rows(batch: MicroBatch, start: int, stop: int) -> MicroBatch:
    """Some samples of a micro-batch."""
    part = MicroBatch(batch.stream)
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            cut = value[..., start:stop] if name == "residual_scale" else value[start:stop]
            setattr(part, name, cut)
    return part


def global_batch(size: int = 6) -> list[MicroBatch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 16, 16, generator=generator, dtype=torch.float64)
    ids = torch.randint(4, 40, (size, 8), generator=generator)
    image_mask = torch.rand(size, 16, generator=generator) < 0.4
    text_mask = torch.rand(size, 8, generator=generator) < 0.5
    codes = torch.randint(0, 12, (size, 16), generator=generator)
    scale = (torch.rand(2, 2, size, generator=generator) < 0.8).double() / 0.8
    text = {"text_ids": ids, "text_mask": text_mask, "text_targets": ids.flip(0)}
    image = {"images": images, "image_mask": image_mask, "codes": codes}
    return [
        MicroBatch("image", **image, residual_scale=scale),
        MicroBatch("text", **text, residual_scale=scale),
        MicroBatch("pair", **image, **text, residual_scale=scale),
    ]


def step(batches, max_grad_norm=None, autocast=FP32):
    torch.manual_seed(0)
    network = BEiT3(CONFIG)
    if autocast is FP32:
        network = network.double()
    optimizer = adamw(network, weight_decay=0.0, betas=(0.9, 0.98), eps=1e-6)
    result = train_step(
        network,
        optimizer,
        batches,
        lr=1e-3,
        loss_weights=WEIGHTS,
        max_grad_norm=max_grad_norm,
        autocast=autocast,
    )
    return network, result


@given(cuts=st.tuples(*[st.sets(st.integers(1, 5)) for _ in range(3)]), data=st.data())
@settings(max_examples=30, deadline=None)
def test_loss_and_gradient_do_not_depend_on_the_micro_batch(cuts, data):
    """Each stream is cut anywhere, and the micro-batches come in any order."""
    whole, expected = step(global_batch())
    parts = [
        rows(batch, start, stop)
        for batch, boundaries in zip(global_batch(), cuts, strict=True)
        for start, stop in itertools.pairwise([0, *sorted(boundaries), 6])
    ]
    split, found = step(data.draw(st.permutations(parts)))
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.accuracy == pytest.approx(expected.accuracy)
    for (name, one), other in zip(whole.named_parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9, msg=name)


def test_weights_cast_once_per_step_give_the_gradient_of_one_micro_batch():
    """In bf16, many micro-batches give the gradient of one up to rounding."""
    bf16 = torch.autocast("cpu", torch.bfloat16)

    def floats() -> list[MicroBatch]:
        batches = global_batch()
        for batch in batches:
            batch.residual_scale = batch.residual_scale.float()
            batch.images = None if batch.images is None else batch.images.float()
        return batches

    whole, _ = step(floats(), autocast=bf16)
    parts = [rows(batch, i, i + 2) for batch in floats() for i in (0, 2, 4)]
    split, _ = step(parts, autocast=bf16)
    one, two = (torch.cat([p.grad.flatten() for p in n.parameters()]) for n in (whole, split))
    assert float(torch.nn.functional.cosine_similarity(one, two, dim=0)) > 0.999
    assert float(two.norm()) == pytest.approx(float(one.norm()), rel=0.01)


def test_a_stream_that_is_absent_has_no_loss():
    _, result = step(global_batch()[:1])
    assert set(result.loss) == {"mim"}


def test_the_gradient_is_clipped():
    network, result = step(global_batch(), max_grad_norm=0.01)
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
    assert result.grad_norm > 0.01
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_a_step_with_a_non_finite_gradient_updates_no_weight():
    batches = global_batch()
    batches[0].images[0, 0, 0, 0] = math.inf
    network, result = step(batches)
    torch.manual_seed(0)
    untouched = BEiT3(CONFIG).double()
    assert result.fault == "gradient"
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), untouched.parameters(), strict=True)
    )


def test_the_schedule_warms_up_peaks_and_ends_at_the_minimum():
    rates = [cosine_lr(s, lr=1.0, min_lr=0.1, warmup_steps=10, steps=110) for s in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_norms_biases_tokens_and_positions_are_not_decayed():
    network = BEiT3(CONFIG)
    optimizer = adamw(network, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    plain = {id(p) for p in optimizer.param_groups[1]["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in plain}
    assert {"vision.class_token", "vision.positions", "norm.both.weight", "mlm_head.bias"} <= names
    assert not {"language.tokens.weight", "mlm_head.weight", "vision.patch.weight"} & names
