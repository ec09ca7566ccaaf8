"""RandAugment: operations give Pillow's pixels; draws are those of the released code."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage
from scipy.stats import chisquare

from dataprep.color_jitter import adjust_brightness
from dataprep.rand_augment import (
    NUM_OPERATIONS,
    NUM_UNIFORMS,
    OPERATIONS,
    auto_contrast,
    equalize,
    rand_augment,
    rotate,
    sharpen,
    shear_x,
    shear_y,
    translate,
)

RELEASED = [
    "Identity", "AutoContrast", "Equalize", "Brightness", "Sharpness",
    "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate",
]  # fmt: skip
"The operations that the released code names for vision-language tasks."


def image(seed, height=33, width=47):
    """Noise within a random range, or a few values only."""
    generator = np.random.default_rng(seed)
    low, high = sorted(generator.integers(0, 256, 2).tolist())
    pixels = generator.integers(low, high + 1, (height, width, 3), dtype=np.uint8)
    return pixels // 60 * 60 if seed % 3 == 0 else pixels


def smooth_image(height=64, width=80):
    """Noise without sharp edges, whose interpolation depends little on rounded positions."""
    noise = np.random.default_rng(5).normal(size=(height, width, 3))
    blurred = ndimage.gaussian_filter(noise, (4, 4, 0))
    return np.clip(128 + 90 * blurred / np.abs(blurred).max(), 0, 255).astype(np.uint8)


COLORS = {
    "AutoContrast": (
        lambda pixels, _: auto_contrast(pixels),
        lambda im, _: ImageOps.autocontrast(im),
    ),
    "Equalize": (lambda pixels, _: equalize(pixels), lambda im, _: ImageOps.equalize(im)),
    "Brightness": (adjust_brightness, lambda im, f: ImageEnhance.Brightness(im).enhance(f)),
    "Sharpness": (sharpen, lambda im, f: ImageEnhance.Sharpness(im).enhance(f)),
}


@pytest.mark.parametrize("name", COLORS)
@given(seed=st.integers(0, 10_000), factor=st.one_of(st.just(1.36), st.floats(0, 2)))
@settings(max_examples=60, deadline=None)
def test_operations_on_colors_give_pillows_pixels(name, seed, factor):
    ours, pillows = COLORS[name]
    expected = np.asarray(pillows(Image.fromarray(image(seed)), factor))
    assert np.array_equal(ours(image(seed), factor), expected)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (40, 40, 3)])
def test_an_image_of_one_color_is_left_as_pillow_leaves_it(value, shape):
    pixels = np.full(shape, value, np.uint8)
    for name in "AutoContrast", "Equalize", "Sharpness":
        ours, pillows = COLORS[name]
        assert np.array_equal(ours(pixels, 1.36), pillows(Image.fromarray(pixels), 1.36)), name


def moved(pixels, matrix):
    """Pillow's image, whose (2, 3) matrix gives the source of each pixel, by their centers."""
    a, b, c, d, e, f = matrix
    by_corners = (a, b, c + 0.5 - (a + b) / 2, d, e, f + 0.5 - (d + e) / 2)
    source = Image.fromarray(pixels)
    return np.asarray(
        source.transform(
            source.size,
            Image.Transform.AFFINE,
            by_corners,
            Image.Resampling.BILINEAR,
            fillcolor=(128, 128, 128),
        )
    )


def turned(pixels, degrees):
    height, width = pixels.shape[:2]
    return np.asarray(
        Image.fromarray(pixels).rotate(
            degrees,
            Image.Resampling.BILINEAR,
            center=(width / 2 + 0.5, height / 2 + 0.5),
            fillcolor=(128, 128, 128),
        )
    )


POSITIONS = {
    "ShearX": lambda pixels, sign: moved(pixels, (1, -sign * 0.21, 0, 0, 1, 0)),
    "ShearY": lambda pixels, sign: moved(pixels, (1, 0, 0, -sign * 0.21, 1, 0)),
    "TranslateX": lambda pixels, sign: moved(pixels, (1, 0, -sign * 7, 0, 1, 0)),
    "TranslateY": lambda pixels, sign: moved(pixels, (1, 0, 0, 0, 1, -sign * 7)),
    "Rotate": lambda pixels, sign: turned(pixels, sign * 21),
}


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", POSITIONS)
def test_operations_on_positions_move_as_pillow_with_a_matrix_of_the_same_level(name, sign):
    pixels = smooth_image()
    ours, pillows = OPERATIONS[name](pixels, sign), POSITIONS[name](pixels, sign)
    # A pixel at the border is mixed with the fill by one program and cut off by the other.
    outside = (pillows == 128).all(-1)
    near_border = ndimage.binary_dilation(outside, iterations=2)
    near_border ^= ndimage.binary_erosion(outside, iterations=2)
    difference = np.abs(ours.astype(int) - pillows)[~near_border]
    # Both programs round positions to a fraction of a pixel; neighbors differ by several levels.
    assert difference.max() <= 2
    assert np.abs(ours.astype(int) - pixels).mean() > 5  # it moved


@pytest.mark.parametrize(("x", "y"), [(7, 0), (-7, 0), (0, 7), (0, -7), (3, -2)])
def test_a_translation_by_whole_pixels_is_pillows(x, y):
    pixels = image(1)
    assert np.array_equal(translate(pixels, x, y), moved(pixels, (1, 0, -x, 0, 1, -y)))


@pytest.mark.parametrize("operation", [shear_x, shear_y, rotate])
def test_an_operation_of_size_zero_changes_nothing(operation):
    assert np.array_equal(operation(image(1), 0.0), image(1))


def test_the_operations_are_those_of_the_released_code():
    assert list(OPERATIONS) == RELEASED


def test_operations_are_applied_in_the_order_drawn_each_with_its_chance_and_sign():
    pixels = smooth_image()
    for first in range(10):
        for second in range(10):
            uniforms = np.array([(first + 0.5) / 10, 0.4, 0.3, (second + 0.5) / 10, 0.49, 0.8])
            one, two = RELEASED[first], RELEASED[second]
            expected = OPERATIONS[two](OPERATIONS[one](pixels, 1.0), -1.0)
            assert np.array_equal(rand_augment(pixels, uniforms), expected), (one, two)
            uniforms[1] = 0.5
            assert np.array_equal(rand_augment(pixels, uniforms), OPERATIONS[two](pixels, -1.0))
            uniforms[4] = 0.999
            assert np.array_equal(rand_augment(pixels, uniforms), pixels)
    assert NUM_UNIFORMS == 3 * NUM_OPERATIONS == 6


def test_each_operation_is_as_frequent_as_the_others(monkeypatch):
    counts = Counter()
    for name in RELEASED:
        monkeypatch.setitem(
            OPERATIONS,
            name,
            lambda pixels, sign, name=name: counts.update([(name, sign)]) or pixels,
        )
    draws = np.random.default_rng(3).random((10_000, NUM_UNIFORMS))
    for uniforms in draws:
        rand_augment(image(1), uniforms)
    # Two operations of each image, half of them applied; ten operations with two signs.
    assert abs(counts.total() - 10_000) < 4 * np.sqrt(20_000 / 4)
    observed = [counts[name, sign] for name in RELEASED for sign in (1.0, -1.0)]
    assert chisquare(observed).pvalue > 1e-3


def test_the_crop_that_is_given_is_not_changed():
    pixels = image(7)
    for name in RELEASED:
        OPERATIONS[name](pixels, 1.0)
        assert np.array_equal(pixels, image(7)), name
