"""Masks of COCO against pycocotools, and masks that its C code would not survive."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from dataprep.row_errors import RowError
from dataprep.tasks.run_lengths import (
    counts_of,
    mask_of,
    mask_text,
    text_of,
    text_of_mask,
    text_of_part,
)

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_texts_are_those_of_pycocotools(mask):
    height, width = mask.shape
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert text_of_mask(mask) == theirs
    assert (mask_of(theirs, width, height) == mask).all()
    assert text_of(counts_of(theirs)) == theirs


@given(MASKS, st.tuples(*[st.integers(0, 5)] * 4))
def test_a_part_of_a_mask_has_the_text_of_the_whole(part, margins):
    left, top, right, bottom = margins
    whole = np.pad(part, ((top, bottom), (left, right)))
    height, width = whole.shape
    theirs = coco.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"].decode()
    assert text_of_part(part, left, top, width, height) == theirs


@given(MASKS)
def test_every_form_of_a_mask_has_one_text(mask):
    height, width = mask.shape
    text = text_of_mask(mask)
    counts = counts_of(text).tolist()
    if not mask.any():
        with pytest.raises(RowError, match="empty_mask"):
            mask_text({"size": [height, width], "counts": counts}, width, height)
        return
    for form in (text, counts):
        assert mask_text({"size": [height, width], "counts": form}, width, height) == text


@pytest.mark.parametrize("seed", range(20))
def test_polygons_cover_the_pixels_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(20, 90, 2))
    polygons = [
        (rng.uniform(-0.1, 1.1, (int(n), 2)) * [width, height]).round(2).reshape(-1).tolist()
        for n in rng.integers(3, 9, rng.integers(1, 4))
    ]
    theirs = coco.merge(coco.frPyObjects(polygons, height, width))
    found = mask_of(mask_text(polygons, width, height), width, height)
    assert (found == coco.decode(theirs).astype(bool)).all()


def test_no_mask_and_polygons_of_two_points():
    assert mask_text(None, 9, 9) == mask_text([], 9, 9) == ""
    square = [1, 1, 5, 1, 5, 5, 1, 5]
    assert mask_text([[0, 0, 8, 8], square], 9, 9) == mask_text([square], 9, 9)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [8, 9], "counts": [0, 72]}, "mask_size"),
        ({"size": [9, 9, 1], "counts": [0, 81]}, "mask_size"),
        ({"counts": [0, 81]}, "mask_size"),
        ({"size": [9, 9], "counts": [0, 82]}, "bad_mask"),
        ({"size": [9, 9], "counts": [100, -19]}, "bad_mask"),
        ({"size": [9, 9], "counts": [1 << 70, 5]}, "bad_mask"),
        ({"size": [9, 9], "counts": [0, 81.0]}, "bad_mask"),
        ({"size": [9, 9], "counts": ["a"]}, "bad_mask"),
        ({"size": [9, 9], "counts": "\x00"}, "bad_mask"),
        ({"size": [9, 9], "counts": "o" * 40}, "bad_mask"),
        ({"size": [9, 9], "counts": "P"}, "bad_mask"),
        ({"size": [9, 9], "counts": "o" * 12 + "?"}, "bad_mask"),
        ({"size": [9, 9], "counts": ("o" * 11 + "?") * 9}, "bad_mask"),
        ({"size": [9, 9], "counts": [10**400, 5]}, "bad_mask"),
        ({"size": [9, 9]}, "bad_mask"),
        ({"size": [9, 9], "counts": [81]}, "empty_mask"),
        ({"size": [9, 9], "counts": [81, 0]}, "empty_mask"),
        ([[1, 1, 5, 1, 5]], "bad_mask"),
        ([[1, 1, 5, 1, float("nan"), 5]], "bad_mask"),
        ([[1, 1, 5, 1, 1e300, 5]], "bad_mask"),
        ([[1, 1, 5, 1, -(10**400), 5]], "bad_mask"),
        ([[1, 1, 5, 1, "5", 5]], "bad_mask"),
        ([1, 1, 5, 1, 5, 5], "bad_mask"),
        ([[1, 1, 5, 5]], "bad_mask"),
        ([[2, 2, 2, 2, 2, 2]], "empty_mask"),
        ("polygon", "bad_mask"),
    ],
)
def test_what_is_no_mask_is_named(segmentation, reason):
    with pytest.raises(RowError) as found:
        mask_text(segmentation, 9, 9)
    assert found.value.reason == reason


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_text_is_a_mask_of_the_image_or_an_error(text):
    try:
        made = mask_text({"size": [7, 5], "counts": text}, 5, 7)
    except RowError:
        return
    theirs = coco.decode({"size": [7, 5], "counts": made})
    assert (mask_of(made, 5, 7) == theirs.astype(bool)).all()
