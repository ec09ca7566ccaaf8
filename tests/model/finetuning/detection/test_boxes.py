"""Pyramid, pooling, box coding and matching against torchvision and by hand."""

import math

import pytest
import torch
from torch import nn
from torchvision.ops import MultiScaleRoIAlign

from model.finetuning.detection.cascade import BOX_WEIGHTS, MIN_IOU, BoxHead, Cascade, match
from model.finetuning.detection.pooling import levels_of, pool
from model.finetuning.detection.proposals import Proposals
from model.finetuning.detection.pyramid import SimpleFeaturePyramid, strides
from model.finetuning.detection.sampling import sample
from tests.model.finetuning.detection.scenes import SIZES, objects


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (8, 12)])
def test_maps_cover_the_image_at_their_strides(rows, columns):
    made = SimpleFeaturePyramid(24, 16)(torch.randn(2, 24, rows, columns))
    assert strides(16) == [4, 8, 16, 32, 64] and strides(8) == [2, 4, 8, 16, 32]
    shapes = [(rows * 16 // stride, columns * 16 // stride) for stride in strides(16)]
    assert [tuple(map_.shape) for map_ in made] == [(2, 16, *shape) for shape in shapes]


@pytest.mark.parametrize("patch_size", [14, 6, 1])
def test_patches_without_whole_strides_are_refused(patch_size):
    """torchvision's anchors have whole strides: they would end before a map of others does."""
    with pytest.raises(ValueError, match=f"patches of {patch_size} pixels; .* a multiple of 4"):
        strides(patch_size)


def test_anchors_are_centered_on_the_corners_of_their_positions():
    made = Proposals(SIZES, strides(16)).network.anchor_generator
    from torchvision.models.detection.image_list import ImageList

    maps = [torch.zeros(1, 16, 64 // s, 128 // s) for s in strides(16)]
    (anchors,) = made(ImageList(torch.zeros(1, 3, 64, 128), [(64, 128)]), maps)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    sides = ((anchors[:, 2:] - anchors[:, :2]).prod(1)).sqrt()
    first = 0
    for stride, map_ in zip(strides(16), maps, strict=True):
        number = 3 * map_.shape[2] * map_.shape[3]
        some = slice(first, first + number)
        assert (centers[some] % stride == 0).all()
        torch.testing.assert_close(
            sides[some], torch.full((number,), 8.0 * stride), atol=1, rtol=0.03
        )
        first += number


def random_boxes(number: int, side: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(number, 2, generator=generator) * side * 0.6
    sides = (torch.rand(number, 2, generator=generator) ** 2) * side * 0.4 + 18
    return torch.cat([near, near + sides], dim=1)


def test_features_of_boxes_are_torchvision_s_half_a_position_away():
    """torchvision's pooler has no half-pixel offset; each map's offset is undone in its boxes."""
    maps = [torch.randn(2, 5, 1024 // s, 1024 // s) for s in (4, 8, 16, 32)]
    boxes = [random_boxes(20, 1024, 0), random_boxes(11, 1024, 1)]
    found = pool(maps, boxes, (4, 8, 16, 32), 7)
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 0)
    shifted = [some - 0.5 * 4 * 2 ** levels_of(some, (4, 8, 16, 32))[:, None] for some in boxes]
    named = {str(i): map_ for i, map_ in enumerate(maps)}
    torch.testing.assert_close(found, pooler(named, shifted, [(1024, 1024)] * 2))
    assert set(torch.cat([levels_of(some, (4, 8, 16, 32)) for some in boxes]).tolist()) >= {0, 1, 2}


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (5000, 3)],
)
def test_the_level_of_a_box_is_the_one_of_the_feature_pyramid_paper(side, level):
    assert levels_of(torch.tensor([[0.0, 0, side, side]]), (4, 8, 16, 32)).tolist() == [level]


@pytest.mark.parametrize("stage", range(3))
def test_boxes_are_refined_as_computed_by_hand(stage):
    """A box at (10, 20) of 40 x 80: moved by a tenth and a fifth, as wide, half as high."""
    coder = BoxHead(SIZES, 2, BOX_WEIGHTS[stage]).coder
    x, _, w, _ = BOX_WEIGHTS[stage]
    assert (x, w) == [(10, 5), (20, 10), (30, 15)][stage]
    deltas = torch.tensor([[x * 0.1, x * 0.2, 0.0, w * math.log(0.5)]])
    box = torch.tensor([[10.0, 20, 50, 100]])
    expected = torch.tensor([[14.0, 56, 54, 96]])
    torch.testing.assert_close(coder.decode_single(deltas, box), expected)
    torch.testing.assert_close(coder.encode_single(expected, box), deltas)


def test_a_box_is_the_object_of_the_largest_overlap_if_that_is_large_enough():
    """Overlaps with the first object: 1, 0.6 and 0."""
    some = objects([[0, 0, 10, 10], [20, 20, 30, 30]], [2, 1])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [50, 50, 60, 60]])
    by_iou = {0.5: [2, 2, 3], 0.6: [2, 2, 3], 0.7: [2, 3, 3]}
    assert tuple(by_iou) == MIN_IOU
    for min_iou, classes in by_iou.items():
        found = match(boxes, some, min_iou, 3)
        assert found.classes.tolist() == classes
        assert found.object[:2].tolist() == [0, 0]
    assert match(boxes, objects([], []), 0.5, 3).classes.tolist() == [3, 3, 3]


def test_a_quarter_of_the_sampled_boxes_are_positive_and_draws_belong_to_the_seed():
    positive = torch.arange(1000) % 5 == 0
    drawn = sample(positive, ~positive, 128, 32, 7, 0)
    assert len(set(drawn.tolist())) == 128 and positive[drawn].sum() == 32
    assert sample(positive, ~positive, 128, 32, 7, 0).tolist() == drawn.tolist()
    assert sample(positive, ~positive, 128, 32, 8, 0).tolist() != drawn.tolist()
    assert sample(positive, ~positive, 128, 32, 7, 1).tolist() != drawn.tolist()
    few = torch.arange(1000) < 3
    assert len(sample(few, ~few, 128, 32, 7, 0)) == 128
    assert len(sample(few, few & False, 128, 32, 7, 0)) == 3


def test_heads_together_send_one_gradient_to_the_maps():
    """Each head's gradient of its pooled features is divided by the number of heads."""
    torch.manual_seed(0)
    cascade = Cascade(SIZES, 3)
    for head in cascade:
        nn.init.zeros_(head.box.weight)
    some = [objects([[4, 8, 30, 40]], [0])]
    maps = [torch.randn(1, 16, 64 // s, 64 // s, requires_grad=True) for s in (4, 8, 16, 32)]
    proposals = [random_boxes(20, 64, 1).clamp(max=64)]
    losses, _ = cascade.losses(maps, (4, 8, 16, 32), proposals, [(64, 64)], some, [3])
    assert set(losses) == {f"{name}_{i}" for name in ("class", "box") for i in (1, 2, 3)}
    gradients = []
    for number, head in enumerate(cascade, start=1):
        loss = losses[f"class_{number}"].sum()
        gradients.append(torch.autograd.grad(loss, maps[0], retain_graph=True)[0].abs().sum())
        del head
    assert all(gradient > 0 for gradient in gradients)
