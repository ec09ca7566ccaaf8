"""Random erasing takes timm's boxes, and its noise has the colors of ImageNet."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm.data.random_erasing as timms
import torch

from dataprep.random_erasing import erase

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def drawing_from(rng):
    """The functions of ``random`` that timm calls, with the numbers of a generator."""
    return SimpleNamespace(
        random=rng.random,
        uniform=lambda low, high: low + (high - low) * rng.random(),
        randint=lambda low, high: low + int(rng.random() * (high - low + 1)),
    )


@pytest.mark.parametrize("probability", [0.25, 1.0])
@pytest.mark.parametrize("shape", [(32, 32), (48, 20), (3, 2)])
def test_the_same_numbers_erase_timms_box(monkeypatch, shape, probability):
    module = timms.RandomErasing(probability, mode="pixel", device="cpu")
    erased = 0
    for seed in range(200):
        pixels = np.zeros((*shape, 3), np.uint8)
        erase(pixels, probability, np.random.default_rng(seed))
        monkeypatch.setattr(timms, "random", drawing_from(np.random.default_rng(seed)))
        expected = module(torch.full((3, *shape), -9.0)).numpy() != -9
        box = pixels.any(-1)
        erased += box.any()
        # A pixel of noise may be black.
        assert not (box & ~expected[0]).any() and (expected[0] & ~box).mean() < 0.02
    assert erased == 200 if probability == 1 and min(shape) > 3 else erased < 200


def test_noise_has_imagenets_mean_and_deviation_and_is_cut_off_rarely():
    values = []
    for seed in range(60):
        pixels = np.zeros((64, 64, 3), np.uint8)
        erase(pixels, 1.0, np.random.default_rng(seed))
        values.append(pixels[pixels.any(-1)])
    values = np.concatenate(values) / 255
    assert np.abs(values.mean(0) - MEAN).max() < 0.01
    assert np.abs(values.std(0) / STD - 1).max() < 0.06  # less than 1 as it is cut off
    assert 0.01 < np.isin(values, (0, 1)).mean() < 0.06


def test_a_probability_of_zero_erases_nothing():
    pixels = np.full((32, 32, 3), 9, np.uint8)
    for seed in range(50):
        erase(pixels, 0.0, np.random.default_rng(seed))
    assert (pixels == 9).all()
