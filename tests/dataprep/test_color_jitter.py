"""Color jitter gives the pixels of torchvision's operations on Pillow images."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from dataprep.color_jitter import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    jitter_color,
)

OPERATIONS = [
    (adjust_brightness, functional.adjust_brightness),
    (adjust_contrast, functional.adjust_contrast),
    (adjust_saturation, functional.adjust_saturation),
]


def image(seed, height=33, width=47):
    generator = np.random.default_rng(seed)
    low, high = sorted(generator.integers(0, 256, 2).tolist())
    return generator.integers(low, high + 1, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("ours", "theirs"), OPERATIONS, ids=lambda f: f.__module__)
@given(seed=st.integers(0, 10_000), factor=st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_each_operation_gives_torchvisions_pixels(ours, theirs, seed, factor):
    pixels = image(seed)
    expected = np.asarray(theirs(Image.fromarray(pixels), factor))
    assert np.array_equal(ours(pixels, factor), expected)


@pytest.mark.parametrize(("ours", "theirs"), OPERATIONS, ids=lambda f: f.__module__)
@pytest.mark.parametrize("factor", [1 - 2**-24, 1 - 2**-20, 0.6 - 1e-6, 1.2 - 1e-6, 1.4 - 1e-7])
def test_results_just_under_a_whole_number_are_cut_off_as_torchvisions(ours, theirs, factor):
    pixels = image(3, 256, 256)
    expected = np.asarray(theirs(Image.fromarray(pixels), factor))
    assert np.array_equal(ours(pixels, factor), expected)


@pytest.mark.parametrize("shape", [(224, 224), (46, 7)])
def test_a_mean_gray_between_two_levels_is_rounded_up_as_torchvisions(shape):
    for level in range(255):
        pixels = np.full((*shape, 3), level, np.uint8)
        pixels[: shape[0] // 2] += 1
        expected = np.asarray(functional.adjust_contrast(Image.fromarray(pixels), 0.5))
        assert np.array_equal(adjust_contrast(pixels, 0.5), expected), level


@pytest.mark.parametrize(("ours", "theirs"), OPERATIONS, ids=lambda f: f.__module__)
@pytest.mark.parametrize("factor", [-1e10, -0.7, 1e-40, 3.0, 10.0, 255.0, 1e7, 1e30])
def test_factors_beyond_a_jitters_give_torchvisions_pixels_too(ours, theirs, factor):
    for pixels in (image(5), np.full((5, 7, 3), 9, np.uint8)):
        expected = np.asarray(theirs(Image.fromarray(pixels), factor))
        assert np.array_equal(ours(pixels, factor), expected)


@given(seed=st.integers(0, 10_000), strength=st.floats(0, 0.9), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_jitter_is_torchvisions_operations_in_one_of_the_six_orders(seed, strength, data):
    uniforms = np.array(data.draw(st.lists(st.floats(0, 0.999), min_size=4, max_size=4)))
    order = list(permutations(range(3)))[int(uniforms[3] * 6)]
    expected = Image.fromarray(image(seed))
    for number in order:
        factor = float(1 + strength * (2 * uniforms[number] - 1))
        expected = OPERATIONS[number][1](expected, factor)
    assert np.array_equal(jitter_color(image(seed), strength, uniforms), np.asarray(expected))


def test_all_orders_are_drawn_and_give_different_pixels():
    pixels = image(1)
    uniforms = [np.array([0.9, 0.1, 0.95, (i + 0.5) / 6]) for i in range(6)]
    assert len({jitter_color(pixels, 0.4, some).tobytes() for some in uniforms}) == 6


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("draw", [0.1234, 0.3])  # with 0.3 OpenCV's rounding does not do
def test_a_jitter_can_be_written_over_its_input_or_elsewhere(order, draw):
    pixels, uniforms = image(4), np.array([draw] * 3 + [(order + 0.5) / 6])
    expected = jitter_color(pixels, 0.4, uniforms)
    elsewhere, over = np.empty_like(pixels), pixels.copy()
    jitter_color(pixels, 0.4, uniforms, elsewhere)
    jitter_color(over, 0.4, uniforms, over)
    assert np.array_equal(elsewhere, expected) and np.array_equal(over, expected)
    assert np.array_equal(pixels, image(4))


def test_a_strength_of_zero_changes_nothing():
    assert np.array_equal(jitter_color(image(2), 0.0, np.array([0.9, 0.1, 0.4, 0.7])), image(2))
