"""Deformable attention against plain loops and against transformers' Mask2Former."""

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerPixelDecoderEncoderOnly,
    multi_scale_deformable_attention,
)

from model.finetuning.segmentation.deformable import (
    DeformableAttention,
    centers,
    deformable_attention,
)

SHAPES = [(3, 5), (2, 2), (1, 4)]
NUM_POSITIONS = sum(rows * columns for rows, columns in SHAPES)


def drawn(batch=2, queries=5, heads=3, width=4, points=2):
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(batch, NUM_POSITIONS, heads, width, generator=rng)
    shape = (batch, queries, heads, len(SHAPES), points)
    places = torch.rand(*shape, 2, generator=rng) * 1.6 - 0.3  # some lie outside of the maps
    weights = torch.rand(shape, generator=rng).flatten(3).softmax(-1).view(shape)
    return values, places, weights


def read(map_, x, y):
    """The value (E,) of a map (rows, columns, E) at a place by bilinear interpolation."""
    rows, columns, width = map_.shape
    across, down = x * columns - 0.5, y * rows - 0.5
    total = torch.zeros(width)
    for row in (int(down // 1), int(down // 1) + 1):
        for column in (int(across // 1), int(across // 1) + 1):
            if 0 <= row < rows and 0 <= column < columns:
                part = (1 - abs(down - row)) * (1 - abs(across - column))
                total = total + part * map_[row, column]
    return total


def test_it_is_a_loop_over_queries_heads_maps_and_points():
    values, places, weights = drawn()
    found = deformable_attention(values, SHAPES, places, weights)
    batch, queries, heads, levels, points, _ = places.shape
    assert found.shape == (batch, queries, heads * values.shape[3])
    maps = values.split([rows * columns for rows, columns in SHAPES], dim=1)
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                total = torch.zeros(values.shape[3])
                for level in range(levels):
                    map_ = maps[level][b, :, h].reshape(*SHAPES[level], -1)
                    for p in range(points):
                        x, y = places[b, q, h, level, p].tolist()
                        total = total + weights[b, q, h, level, p] * read(map_, x, y)
                mine = found[b, q].view(heads, -1)[h]
                torch.testing.assert_close(mine, total, atol=1e-5, rtol=1e-5)


def test_it_is_that_of_transformers():
    values, places, weights = drawn()
    expected = multi_scale_deformable_attention(values, SHAPES, places, weights)
    found = deformable_attention(values, SHAPES, places, weights)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_layer_with_the_same_weights_is_that_of_transformers():
    torch.manual_seed(0)
    mine = DeformableAttention(12, num_heads=4, num_levels=len(SHAPES), num_points=3)
    theirs = Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention(12, 4, len(SHAPES), 3)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    theirs.load_state_dict(mine.state_dict())
    ratios = torch.ones(1, len(SHAPES), 2)
    reference = Mask2FormerPixelDecoderEncoderOnly.get_reference_points(SHAPES, ratios, "cpu")
    places = centers(SHAPES, torch.device("cpu"))
    torch.testing.assert_close(reference[0, :, 0], places)
    x = torch.randn(2, NUM_POSITIONS, 12)
    expected, _ = theirs(
        hidden_states=x,
        encoder_hidden_states=x,
        reference_points=reference,
        spatial_shapes_list=SHAPES,
    )
    torch.testing.assert_close(mine(x, places, x, SHAPES), expected, atol=1e-5, rtol=1e-5)


def test_at_first_heads_look_in_all_directions_and_count_alike():
    layer = DeformableAttention(16, num_heads=8, num_levels=1, num_points=2)
    offsets = layer.sampling_offsets.bias.view(8, 2, 2)
    first = {tuple(each) for each in offsets[:, 0].detach().round(decimals=4).tolist()}
    expected = {(x, y) for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)} - {(0.0, 0.0)}
    assert {(x + 0.0, y + 0.0) for x, y in first} == expected
    torch.testing.assert_close(offsets[:, 1], 2 * offsets[:, 0])
    x = torch.randn(1, 6, 16)
    places = centers([(2, 3)], x.device)
    constant = torch.ones(1, 400, 16)
    read = layer(x, places, constant, [(20, 20)])
    torch.testing.assert_close(read, layer.output_proj(layer.value_proj(constant[:, :6])))


def test_places_stay_exact_where_the_rest_is_in_bf16():
    torch.manual_seed(0)
    layer = DeformableAttention(16, num_heads=2, num_levels=1, num_points=2)
    x, places = torch.randn(1, 9, 16), centers([(3, 3)], torch.device("cpu"))
    maps = torch.randn(1, 64 * 64, 16)
    expected = layer(x, places, maps, [(64, 64)])
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x, places, maps, [(64, 64)])
    assert (found.float() - expected).abs().max() < 0.03 * expected.abs().max()


def test_values_that_heads_cannot_divide_are_refused():
    with pytest.raises(ValueError, match="values of width 9 cannot be divided among 4 heads"):
        DeformableAttention(18, num_heads=4, num_levels=1, num_points=1, value_ratio=0.5)
