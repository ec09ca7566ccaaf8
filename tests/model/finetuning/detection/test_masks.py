"""Masks in the frames of boxes and in an image."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from model.finetuning.detection.masks import MASK_SIDE, cut_out, pasted
from tests.model.finetuning.detection.scenes import objects


def disk(side: int, x: float, y: float, radius: float) -> torch.Tensor:
    across = torch.arange(side) + 0.5
    return (across[None] - x) ** 2 + (across[:, None] - y) ** 2 <= radius**2


def test_a_mask_that_fills_its_box_is_all_ones_and_half_of_it_in_a_box_twice_as_wide():
    masks = objects([[10, 10, 30, 30]], [0]).masks
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 50, 30]])
    whole, half = cut_out(masks, torch.tensor([0, 0]), boxes)
    assert whole.all()
    assert half[:, : MASK_SIDE // 2].all() and not half[:, MASK_SIDE // 2 :].any()


def test_cut_masks_are_those_of_torchvision_half_a_pixel_away():
    masks = torch.stack([disk(64, 30, 30, 14), disk(64, 20, 40, 9)])
    boxes = torch.tensor([[15.0, 15, 47, 44], [8, 30, 31, 52], [10, 10, 40, 40]])
    index = torch.tensor([0, 1, 1])
    theirs = project_masks_on_boxes(masks, boxes - 0.5, index, MASK_SIDE) >= 0.5
    assert (cut_out(masks, index, boxes).bool() == theirs).all()


@pytest.mark.parametrize("box", [[8.0, 8, 36, 36], [20.3, 11.7, 50.2, 60.9], [0.0, 0, 64, 64]])
def test_a_pasted_box_covers_the_pixels_whose_centers_lie_in_it(box):
    found = pasted(torch.ones(1, MASK_SIDE, MASK_SIDE), torch.tensor([box]), 64, 64)[0]
    centers = torch.arange(64) + 0.5
    rows = (centers >= box[1]) & (centers <= box[3])
    columns = (centers >= box[0]) & (centers <= box[2])
    assert (found == rows[:, None] & columns).all()


def test_a_mask_that_is_cut_out_and_pasted_is_itself_but_for_its_edge():
    masks = torch.stack([disk(96, 40, 50, 30), disk(96, 80, 10, 14)])
    boxes = torch.tensor([[9.0, 19, 71, 81], [65, 0, 95, 25]])
    cut = cut_out(masks, torch.tensor([0, 1]), boxes)
    found = pasted(cut, boxes, 96, 96)
    overlap = (found & masks).flatten(1).sum(1) / (found | masks).flatten(1).sum(1)
    assert overlap.min() > 0.93


def test_pasted_masks_are_those_of_a_sample_at_every_pixel():
    """One grid over the whole image, beside parts of it; boxes may leave the image."""
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(5, MASK_SIDE, MASK_SIDE, generator=generator)
    boxes = torch.tensor(
        [[3.2, 4, 30, 20.5], [-9, -5, 12, 8], [25, 20, 70, 60], [50, 3, 60, 9], [7, 7, 7, 7]]
    )
    x, y = ((torch.arange(side) + 0.5) for side in (40, 30))
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    across = 2 * (x[None] - boxes[:, :1]) / sides[:, :1] - 1
    down = 2 * (y[None] - boxes[:, 1:2]) / sides[:, 1:] - 1
    grid = torch.stack(
        [across[:, None, :].expand(-1, 30, -1), down[:, :, None].expand(-1, -1, 40)], 3
    )
    inside = (grid.abs() <= 1).all(3)
    expected = (F.grid_sample(values[:, None], grid, align_corners=False)[:, 0] >= 0.5) & inside
    assert torch.equal(pasted(values, boxes, 30, 40), expected)
    assert expected.flatten(1).any(1).tolist() == [True, True, True, False, False]


def test_no_boxes_have_no_masks():
    assert pasted(torch.zeros(0, MASK_SIDE, MASK_SIDE), torch.zeros(0, 4), 5, 7).shape == (0, 5, 7)
    none = cut_out(objects([], []).masks, torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    assert none.shape == (0, MASK_SIDE, MASK_SIDE)
