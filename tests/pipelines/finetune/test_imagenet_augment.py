"""RandAugment of ImageNet: timm's operations and its distribution, from numbers that are given."""

import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import timm.data.auto_augment as timms
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp
from timm.data import create_transform

from pipelines.finetune import imagenet_augment
from pipelines.finetune.imagenet_augment import (
    NUM_UNIFORMS,
    OPERATIONS,
    augmented,
    imagenet_rand_augment,
)

RELEASED = "rand-m9-mstd0.5-inc1"
MAGNITUDES = [0.0, 3.3, 7.95, 9.0, 10.0]


def image(seed=0, height=40, width=52):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def rand_augment_of_timm():
    """timm's RandAugment within the training transform of the released fine-tuning."""
    transform = create_transform(
        224, is_training=True, auto_augment=RELEASED, interpolation="bicubic", re_prob=0.25
    )
    return next(each for each in transform.transforms if isinstance(each, timms.RandAugment))


def test_operations_and_their_further_arguments_are_those_of_timms_transform():
    theirs = rand_augment_of_timm()
    assert [op.name for op in theirs.ops] == list(OPERATIONS)
    assert theirs.num_layers * 4 == NUM_UNIFORMS
    for op in theirs.ops:
        assert op.kwargs == imagenet_augment._FURTHER
        assert (op.prob, op.magnitude, op.magnitude_std) == (0.5, 9, 0.5)


def posterized_before_pillow_13(source, bits):
    """Pillow 13 refuses 0 bits, which timm asks for at the highest magnitude."""
    return source.point([i & ~(2 ** (8 - bits) - 1) for i in range(256)] * 3)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_of_the_same_magnitude_gives_the_pixels_of_timms(monkeypatch, name, sign):
    theirs = next(op for op in rand_augment_of_timm().ops if op.name == name)
    monkeypatch.setattr(timms.ImageOps, "posterize", posterized_before_pillow_13)
    for magnitude in MAGNITUDES:
        forced = SimpleNamespace(
            random=lambda: 0.2 if sign == 1 else 0.8,
            gauss=lambda mean, std, magnitude=magnitude: magnitude,
        )
        monkeypatch.setattr(timms, "random", forced)
        monkeypatch.setattr(theirs, "prob", 1.0)
        assert augmented(image(), name, magnitude, sign) == theirs(image()), magnitude


def calls(monkeypatch, augment, names):
    """Name, sign and first argument of each call of a function of timm."""
    found = []
    for name in names:
        monkeypatch.setitem(
            timms.NAME_TO_OP,
            name,
            lambda image, *arguments, name=name, **_: found.append((name, *arguments)) or image,
        )
    augment()
    return found


def test_operations_signs_and_magnitudes_are_distributed_as_timms(monkeypatch):
    count, pixels = 20_000, np.zeros((4, 4, 3), np.uint8)
    uniforms = np.random.default_rng(1).random((count, NUM_UNIFORMS))

    def ours():
        for some in uniforms:
            imagenet_rand_augment(pixels, some)

    def theirs():
        random.seed(2)
        np.random.seed(3)
        with monkeypatch.context() as patch:  # timm keeps the functions when it is made
            patch.setattr(timms, "random", random)
            transform = rand_augment_of_timm()
            for _ in range(count):
                transform(Image.fromarray(pixels))

    found = [calls(monkeypatch, augment, OPERATIONS) for augment in (ours, theirs)]
    assert [abs(len(each) - count) < 4 * np.sqrt(count / 2) for each in found] == [True, True]
    tables = [Counter(name for name, *_ in each) for each in found]
    rows = [[table[name] for name in OPERATIONS] for table in tables]
    assert chi2_contingency(rows).pvalue > 1e-3
    for name in OPERATIONS:
        values = [[call[1] for call in each if call[0] == name and call[1:]] for each in found]
        assert len(values[0]) == 0 == len(values[1]) or ks_2samp(*values).pvalue > 1e-4, name


def test_two_operations_are_applied_in_the_order_drawn():
    pixels = np.asarray(image())
    uniforms = np.array([0.5 / 15, 0.1, 0.5, 0.1, 3.5 / 15, 0.3, 0.5, 0.9])
    expected = augmented(augmented(image(), OPERATIONS[0], 9, 1), OPERATIONS[3], 9, -1)
    assert np.array_equal(imagenet_rand_augment(pixels, uniforms), np.asarray(expected))


@pytest.mark.parametrize("edge", [0.0, 1 - 2**-53])
def test_every_number_a_caller_can_give_is_taken(edge):
    pixels = np.asarray(image())
    for chance in (0.0, 0.9):
        uniforms = np.array([edge, chance, edge, edge] * 2)
        assert imagenet_rand_augment(pixels, uniforms).shape == pixels.shape


def test_the_random_state_of_the_process_is_neither_used_nor_changed():
    pixels, uniforms = np.asarray(image()), np.random.default_rng(4).random((300, NUM_UNIFORMS))
    before = [imagenet_rand_augment(pixels, some).tobytes() for some in uniforms]
    random.seed(0)
    np.random.seed(0)
    states = random.getstate(), np.random.get_state()[1].tobytes()
    assert [imagenet_rand_augment(pixels, some).tobytes() for some in uniforms] == before
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states
    assert np.array_equal(pixels, np.asarray(image()))
