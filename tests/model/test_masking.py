"""Masks: exact counts, bounds and ratios, each a pure function of (seed, step, slot)."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training import randomness
from model.training.masking import (
    MAX_GRID,
    mask_patches,
    mask_tokens,
    num_masked_patches,
    propose_blocks,
    smallest_block,
)
from model.training.stochastic_depth import residual_scale


@given(grid=st.integers(1, MAX_GRID), ratio=st.floats(0, 1), seed=st.integers(0, 2**40))
@settings(max_examples=60)
def test_patch_masks_have_the_exact_count_for_every_grid(grid, ratio, seed):
    count = num_masked_patches(grid * grid, ratio)
    mask = mask_patches(grid, count, seed, 3, np.arange(5))
    assert mask.shape == (5, grid * grid)
    assert (mask.sum(1) == count).all()


def looped_mask(grid: int, count: int, seed: int, slot: int) -> np.ndarray:
    """The mask of one sample, block by block on an array of patches."""
    mask, refusals, attempt = np.zeros((grid, grid), bool), 0, 0
    while mask.sum() < count and refusals < 10:
        u = randomness.uniform(seed, 3, slot, attempt, np.arange(4), 0)
        left = count - mask.sum()
        drawn = propose_blocks(u[:, None], grid, smallest_block(grid), np.array([left]))
        top, first, height, width = np.concatenate(drawn)[:, 0].tolist()
        after = mask.copy()
        if height < grid and width < grid:
            after[top : top + height, first : first + width] = True
        fits = mask.sum() < after.sum() <= count
        mask, refusals = (after, 0) if fits else (mask, refusals + 1)
        attempt += 1
    flat = mask.ravel()
    rank = randomness.uniform(seed, 3, slot, np.arange(grid * grid), 3)
    for patch in np.argsort(rank).tolist():
        flat[patch] |= flat.sum() < count
    return flat


@pytest.mark.parametrize("grid", [1, 2, 3, 8, 14, 31, 32, 33, 63, MAX_GRID])
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.4, 0.97, 1.0])
def test_patch_masks_are_those_that_loops_draw(grid, ratio):
    count = round(ratio * grid * grid)
    masks = mask_patches(grid, count, 11, 3, np.arange(6))
    for slot, mask in enumerate(masks):
        assert np.array_equal(mask, looped_mask(grid, count, 11, slot))


@given(
    grid=st.integers(4, 32),
    ratio=st.floats(0.1, 1.0),
    u=st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
)
@settings(max_examples=300)
def test_blocks_keep_their_bounds_of_area_aspect_and_location(grid, ratio, u):
    """A side is rounded by half a patch at most, and the bounds hold up to this rounding."""
    left = max(1, int(ratio * grid * grid))
    smallest = smallest_block(grid)
    drawn = propose_blocks(np.array(u)[:, None], grid, smallest, np.array([left]))
    top, first, height, width = np.concatenate(drawn)[:, 0].tolist()
    low, high = sorted((smallest, left))
    assert (height - 0.5) * (width - 0.5) <= high
    assert (height + 0.5) * (width + 0.5) >= low
    assert (height - 0.5) / (width + 0.5) <= 1 / 0.3
    assert (height + 0.5) / max(width - 0.5, 0.5) >= 0.3
    if height < grid and width < grid:
        assert 0 <= top <= grid - height
        assert 0 <= first <= grid - width


def beit_mask(grid: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """BEiT's own procedure in plain loops, with the trim or fill that makes the count exact."""
    mask, count = np.zeros((grid, grid), bool), 0
    smallest = 16 * grid * grid / 196
    while count < total:
        for _ in range(10):
            area = smallest + (total - count - smallest) * rng.random()
            aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
            height, width = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if height >= grid or width >= grid:
                continue
            top, first = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
            block = mask[top : top + height, first : first + width]
            new = height * width - int(block.sum())
            if 0 < new <= total - count:
                block[:] = True
                count += new
                break
        else:
            break
    free = np.flatnonzero(~mask)
    mask.flat[rng.choice(free, total - count, replace=False)] = True
    return mask


def shape_statistics(masks: np.ndarray) -> tuple[float, float, float]:
    """Means over (B, grid, grid): connected components, whether there is one, border length.

    The border is counted in edges between a masked and a visible patch.
    """
    labeled = (cv2.connectedComponents(m, connectivity=4)[0] for m in masks.astype(np.uint8))
    components = np.fromiter(labeled, int) - 1  # without the background
    border = (masks[:, 1:] ^ masks[:, :-1]).sum((1, 2)) + (masks[..., 1:] ^ masks[..., :-1]).sum(
        (1, 2)
    )
    return components.mean(), (components == 1).mean(), border.mean()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_patch_masks_have_the_shapes_measured_with_beit_v2_s_generator(seed):
    """Measured over masks of the authors' program: 75 of 196 patches, smallest block 16."""
    masks = mask_patches(14, 75, seed, 5, np.arange(5000)).reshape(-1, 14, 14)
    components, in_one_piece, border = shape_statistics(masks)
    assert components == pytest.approx(1.80, rel=0.02)
    # Of 5,000 masks the fraction in one piece has a standard deviation of 0.007.
    assert in_one_piece == pytest.approx(0.43, abs=0.02)
    assert border == pytest.approx(42.0, rel=0.02)


@pytest.mark.parametrize(("grid", "count"), [(14, 75), (14, 118), (16, 102), (24, 230), (28, 314)])
def test_patch_masks_have_the_shapes_of_beit_s_on_every_grid(grid, count):
    rng = np.random.default_rng(0)
    theirs = shape_statistics(np.stack([beit_mask(grid, count, rng) for _ in range(2000)]))
    ours = shape_statistics(
        mask_patches(grid, count, 0, 0, np.arange(2000)).reshape(-1, grid, grid)
    )
    assert ours[0] == pytest.approx(theirs[0], rel=0.05)
    assert ours[1] == pytest.approx(theirs[1], abs=0.06)
    assert ours[2] == pytest.approx(theirs[2], rel=0.03)


def test_patch_masks_have_the_distribution_of_beit_s():
    """Means over 3000 masks: how often a patch is masked, alone and together with its neighbors."""
    rng = np.random.default_rng(0)
    theirs = np.stack([beit_mask(14, 75, rng) for _ in range(3000)])
    ours = mask_patches(14, 75, 0, 0, np.arange(3000)).reshape(-1, 14, 14)
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 0.05
    for shift in (1, 2, 4):
        down = [(m[:, shift:] & m[:, :-shift]).mean() for m in (ours, theirs)]
        across = [(m[:, :, shift:] & m[:, :, :-shift]).mean() for m in (ours, theirs)]
        assert abs(down[0] - down[1]) < 0.01, (shift, down)
        assert abs(across[0] - across[1]) < 0.01, (shift, across)


def test_75_patches_of_the_paper_s_grid_of_196_are_masked():
    assert num_masked_patches(196, 0.4) == 75
    assert num_masked_patches(256, 0.4) == 102


def test_patches_are_masked_in_blocks():
    """Neighbors of masked patches are masked far more often than independent draws would."""
    mask = mask_patches(14, 75, 0, 0, np.arange(256)).reshape(-1, 14, 14)
    both = (mask[:, :, 1:] & mask[:, :, :-1]).mean()
    assert both > 1.8 * (75 / 196) ** 2
    assert mask.mean(0).min() > 0.0  # no patch is never masked, none always
    assert mask.mean(0).max() < 0.9


def test_a_grid_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="at most 64 patches a side, not 65"):
        mask_patches(65, 10, 0, 0, np.arange(2))


def test_a_mask_depends_on_its_slot_and_not_on_its_neighbors():
    whole = mask_patches(8, 26, 1, 7, np.arange(64))
    assert np.array_equal(mask_patches(8, 26, 1, 7, np.arange(40, 50)), whole[40:50])
    assert not np.array_equal(mask_patches(8, 26, 1, 8, np.arange(64)), whole)


def corrupt(ids, maskable, ratio=0.15, step=0):
    slots = np.arange(len(ids))
    return mask_tokens(ids, maskable, ratio, (4, 903), 904, seed=2, step=step, slots=slots)


@given(data=st.data(), length=st.integers(1, 40), ratio=st.floats(0.05, 0.9))
def test_token_masks_have_the_exact_count_and_no_special_token(data, length, ratio):
    maskable = np.array([data.draw(st.lists(st.booleans(), min_size=length, max_size=length))])
    ids = np.full((1, length), 5)
    corrupted, chosen = corrupt(ids, maskable, ratio)
    available = maskable.sum()
    assert chosen.sum() == (max(1, np.rint(ratio * available)) if available else 0)
    assert not (chosen & ~maskable).any()
    assert np.array_equal(corrupted[~chosen], ids[~chosen])


def test_of_chosen_tokens_80_are_masked_10_random_and_10_kept():
    ids = np.random.default_rng(0).integers(4, 904, (7000, 160))
    corrupted, chosen = corrupt(ids, np.ones_like(ids, bool), ratio=0.9)
    total = chosen.sum()
    assert total > 1_000_000
    new = corrupted[chosen]
    kept = (new == ids[chosen]).mean()
    masked = (new == 904).mean()
    sigma = (0.8 * 0.2 / total) ** 0.5
    assert abs(masked - 0.8) < 5 * sigma
    assert abs(kept - (0.1 + 0.1 / 900)) < 5 * sigma
    random = new[(new != 904) & (new != ids[chosen])]
    assert random.min() == 4 and random.max() == 903


def test_random_numbers_are_uniform_and_independent_between_keys():
    u = randomness.uniform(1, np.arange(300)[:, None], np.arange(300)[None, :])
    histogram = np.histogram(u, 20, (0, 1))[0] / u.size
    assert np.abs(histogram - 0.05).max() < 0.005
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]) < 0.02


def test_random_numbers_do_not_depend_on_how_keys_are_batched():
    whole = randomness.bits(3, np.arange(10), 5)
    assert [int(randomness.bits(3, i, 5)) for i in range(10)] == whole.tolist()
    assert int(randomness.bits(3, 5)) != int(randomness.bits(5, 3))
    assert randomness.integers(7, 1, np.arange(1000)).max() == 6


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean():
    scale = residual_scale(5, 0.4, 0, 0, np.arange(20_000))
    assert (scale[0] == 1).all()
    dropped = (scale == 0).mean((1, 2))
    assert np.abs(dropped - np.linspace(0, 0.4, 5)).max() < 0.02
    assert np.abs(scale.mean((1, 2)) - 1).max() < 0.03
    assert residual_scale(5, 0.0, 0, 0, np.arange(3)) is None
