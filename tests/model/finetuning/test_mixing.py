"""Mixing gives timm's images and targets for the same weight and box, and draws by group."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm.data.mixup as timms
import torch
from scipy.stats import beta, kstest

from model.finetuning.mixing import Mix, Mixing, cut_mix, mix_images, mix_targets

SIZE, CLASSES = 16, 7
RELEASED = Mixing(mixup=0.8, cutmix=1.0, group_size=4)
SLOTS = np.arange(32)


def batch(count, seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, size, size, generator=generator)
    return images, torch.randint(CLASSES, (count,), generator=generator)


def forced(is_cut, weight, center):
    """NumPy's random functions that timm calls; it draws the row of a box before its column."""
    numbers, places = iter([0.0, 0.2 if is_cut else 0.8]), iter(center)
    return SimpleNamespace(
        random=SimpleNamespace(
            rand=lambda: next(numbers),
            beta=lambda a, b: weight,
            randint=lambda low, high, size=None: next(places),
        ),
        sqrt=np.sqrt,
        clip=np.clip,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [0.0, 0.13, 0.5, 0.77, 0.999])
@pytest.mark.parametrize("center", [None, (0, 0), (8, 8), (15, 3), (4, 15)])
def test_a_group_is_mixed_as_timms_batch(monkeypatch, center, weight, smoothing):
    images, classes = batch(6)
    monkeypatch.setattr(timms, "np", forced(center is not None, weight, center or ()))
    mixup = timms.Mixup(0.8, 1.0, mode="batch", label_smoothing=smoothing, num_classes=CLASSES)
    expected, targets = mixup(images.clone(), classes)
    mixes = [Mix(weight) if center is None else cut_mix(SIZE, weight, center)]
    assert torch.allclose(mix_images(images, mixes), expected, atol=1e-6)
    found = mix_targets(classes, CLASSES, mixes, smoothing)
    assert torch.allclose(found, targets, atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(6))


@pytest.mark.parametrize("side", [7, 16, 224])
def test_boxes_are_timms_for_every_weight_and_center(monkeypatch, side):
    rng = np.random.default_rng(0)
    for _ in range(300):
        weight, center = rng.random(), rng.integers(side, size=2).tolist()
        monkeypatch.setattr(timms, "np", forced(True, weight, center))
        (top, bottom, left, right), corrected = timms.cutmix_bbox_and_lam((side, side), weight)
        assert cut_mix(side, weight, center) == Mix(corrected, (top, bottom, left, right))


def test_groups_are_mixed_each_with_its_own_draw_and_within_itself():
    images, classes = batch(12)
    mixes = [Mix(0.3), cut_mix(SIZE, 0.4, (9, 2)), Mix(1.0)]
    mixed, targets = mix_images(images, mixes), mix_targets(classes, CLASSES, mixes, 0.1)
    for i, mix in enumerate(mixes):
        own = slice(4 * i, 4 * i + 4)
        assert torch.equal(mixed[own], mix_images(images[own], [mix]))
        assert torch.equal(targets[own], mix_targets(classes[own], CLASSES, [mix], 0.1))
    assert torch.equal(mixed[8:], images[8:])


def test_images_may_have_more_dimensions_than_one_per_example():
    images, _ = batch(8)
    mixes = [Mix(0.3), cut_mix(SIZE, 0.4, (9, 2))]
    assert torch.equal(mix_images(images[:, None], mixes)[:, 0], mix_images(images, mixes))


def test_draws_depend_on_seed_step_and_slot_but_not_on_the_division_of_a_batch():
    whole = RELEASED.draw(SIZE, 3, 5, SLOTS)
    assert len(whole) == 8 == len(set(whole))
    for count in (4, 8, 16):
        parts = [RELEASED.draw(SIZE, 3, 5, SLOTS[i : i + count]) for i in range(0, 32, count)]
        assert [mix for part in parts for mix in part] == whole
    spread = np.concatenate([SLOTS[8:12], SLOTS[24:28]])  # the slots of a worker
    assert RELEASED.draw(SIZE, 3, 5, spread) == [whole[2], whole[6]]
    for seed, step in ((4, 5), (3, 6)):
        assert not set(RELEASED.draw(SIZE, seed, step, SLOTS)) & set(whole)


@pytest.mark.parametrize("slots", [[0, 1, 2], [1, 2, 3, 4], [0, 1, 2, 4], [3, 2, 1, 0], range(9)])
def test_slots_that_are_not_whole_groups_are_refused(slots):
    with pytest.raises(ValueError, match="groups of 4 consecutive slots"):
        RELEASED.draw(SIZE, 0, 0, np.array(slots))


@pytest.mark.parametrize(
    ("mixing", "fraction_cut"),
    [(Mixing(0.8, 1.0, 1), 0.5), (Mixing(0.8, 0, 1), 0), (Mixing(0, 1.0, 1), 1)],
)
def test_weights_are_distributed_as_timms(mixing, fraction_cut):
    mixes = mixing.draw(10_000, 1, 0, np.arange(4000))
    cuts = [mix for mix in mixes if mix.box]
    assert abs(len(cuts) - fraction_cut * 4000) <= 4 * np.sqrt(4000) / 2 * (fraction_cut == 0.5)
    if fraction_cut < 1:
        weights = [mix.weight for mix in mixes if mix.box is None]
        assert kstest(weights, beta(0.8, 0.8).cdf).pvalue > 1e-3
    # A box that no border cuts off tells the weight that was drawn.
    inner = [mix.weight for mix in cuts if min(mix.box) > 0 and max(mix.box) < 10_000]
    centers = np.array([(mix.box[0] + mix.box[1]) / 2 for mix in cuts if min(mix.box) > 0])
    assert not cuts or (len(inner) > 300 and 3000 < centers.mean() < 7000)


def test_boxes_are_distributed_as_timms():
    mixes = Mixing(0, 1.0, 1).draw(SIZE, 1, 0, np.arange(8000))
    np.random.seed(0)
    theirs = [timms.cutmix_bbox_and_lam((SIZE, SIZE), np.random.beta(1, 1)) for _ in range(8000)]
    ours = np.array([[*mix.box, mix.weight] for mix in mixes])
    theirs = np.array([[*box, weight] for box, weight in theirs])
    error = ours.std(0) * np.sqrt(2 / 8000)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.05)


def test_without_mixup_and_cutmix_nothing_is_mixed():
    images, classes = batch(8)
    mixes = Mixing(0, 0, 4).draw(SIZE, 0, 0, np.arange(8))
    assert torch.equal(mix_images(images, mixes), images)
    found = mix_targets(classes, CLASSES, mixes, 0.0)
    assert torch.equal(found, torch.nn.functional.one_hot(classes, CLASSES).float())


def test_a_smoothed_target_gives_torchs_smoothed_loss():
    logits, classes = torch.randn(8, CLASSES), batch(8)[1]
    expected = torch.nn.functional.cross_entropy(logits, classes, label_smoothing=0.1)
    targets = mix_targets(classes, CLASSES, [Mix(1.0)], 0.1)
    assert torch.allclose(torch.nn.functional.cross_entropy(logits, targets), expected)
