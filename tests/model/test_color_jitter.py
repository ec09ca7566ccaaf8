"""Color jitter of a batch gives the pixels of torchvision's operations on Pillow images."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from dataprep.color_jitter import drawn_operations, jitter_color
from model.training.color_jitter import BRIGHTNESS, CONTRAST, SATURATION, jitter_colors

OPERATIONS = {
    BRIGHTNESS: functional.adjust_brightness,
    CONTRAST: functional.adjust_contrast,
    SATURATION: functional.adjust_saturation,
}


def images(seed, number, height=33, width=47):
    generator = np.random.default_rng(seed)
    bounds = np.sort(generator.integers(0, 256, (2, number, 1, 1, 1)), 0)
    return generator.integers(bounds[0], bounds[1] + 1, (number, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("operation", OPERATIONS)
@given(seed=st.integers(0, 10_000), factors=st.lists(st.floats(0, 2, width=32), min_size=3))
@settings(max_examples=60, deadline=None)
def test_each_operation_gives_torchvisions_pixels(operation, seed, factors):
    pixels = images(seed, len(factors))
    found = jitter_colors(
        torch.from_numpy(pixels),
        torch.full((len(factors), 1), operation),
        torch.tensor(factors)[:, None],
    )
    for image, factor, one in zip(pixels, factors, found, strict=True):
        expected = np.asarray(OPERATIONS[operation](Image.fromarray(image), factor))
        assert np.array_equal(one.numpy(), expected)


@given(seed=st.integers(0, 10_000), strength=st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_a_batch_of_all_orders_is_jittered_as_each_image_alone(seed, strength):
    pixels = images(seed, 12)
    uniforms = np.random.default_rng(seed + 1).random((12, 4))
    uniforms[:, 3] = (np.arange(12) % 6 + 0.5) / 6
    operations, factors = drawn_operations(strength, uniforms)
    assert {tuple(order) for order in operations.tolist()} == set(permutations(range(3)))
    found = jitter_colors(*map(torch.from_numpy, (pixels, operations, factors))).numpy()
    for image, some, one in zip(pixels, uniforms, found, strict=True):
        assert np.array_equal(one, jitter_color(image, strength, some))


def test_the_pixels_of_the_batch_stay_as_they_are():
    pixels = torch.from_numpy(images(0, 2))
    before = pixels.clone()
    found = jitter_colors(pixels, torch.tensor([[0], [1]]), torch.tensor([[0.5], [1.5]]))
    assert torch.equal(pixels, before) and not torch.equal(found, before)
