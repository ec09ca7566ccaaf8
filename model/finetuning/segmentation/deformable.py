"""Multi-scale deformable attention of Deformable DETR (arXiv:2010.04159, section 4.1).

A query reads a few positions of each map, near its own place, instead of all of them. Where they
are and how much they count are linear functions of the query. Between positions of a map its values
are interpolated; outside of the map they are 0.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int]
"Rows and columns of a map."


def deformable_attention(
    values: Tensor, shapes: Sequence[Shape], places: Tensor, weights: Tensor
) -> Tensor:
    """Return the weighted sum (B, Q, H * E) of the values at some places.

    Args:
        values: (B, S, H, E) of all positions, map by map and row by row.
        shapes: of the L maps.
        places: (B, Q, H, L, P, 2) float, x and y; 0 to 1 are the borders of a map.
        weights: (B, Q, H, L, P), which are 1 in sum for each query and head.
    """
    batch, num_queries, num_heads, _, num_points, _ = places.shape
    maps = values.split([rows * columns for rows, columns in shapes], dim=1)
    total: Tensor | float = 0.0
    for level, (shape, of_map) in enumerate(zip(shapes, maps, strict=True)):
        grid = of_map.permute(0, 2, 3, 1).reshape(batch * num_heads, -1, *shape)
        asked = 2 * places[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        # In the precision of the places: one in bf16 is off by pixels.
        read = F.grid_sample(grid.to(asked), asked, align_corners=False)  # (B * H, E, Q, P)
        weight = weights[:, :, :, level].transpose(1, 2).reshape(-1, 1, num_queries, num_points)
        total = total + (read * weight).sum(dim=3)
    assert isinstance(total, Tensor)
    return total.view(batch, -1, num_queries).transpose(1, 2)


def centers(shapes: Sequence[Shape], device: torch.device) -> Tensor:
    """Return the places (S, 2) of all positions of maps, x and y, in the order of the values."""
    found = []
    for rows, columns in shapes:
        y = (torch.arange(rows, device=device) + 0.5) / rows
        x = (torch.arange(columns, device=device) + 0.5) / columns
        found.append(torch.stack([x.repeat(rows), y.repeat_interleave(columns)], dim=1))
    return torch.cat(found)


class DeformableAttention(nn.Module):
    """Cross-attention from queries with a place to maps.

    At first each head looks in its own direction, a point farther than the one before it, and all
    points count alike, as in the authors' code.
    """

    def __init__(
        self, width: int, num_heads: int, num_levels: int, num_points: int, value_ratio: float = 1.0
    ) -> None:
        """Build the layers.

        Args:
            width: D.
            num_heads: H.
            num_levels: L, number of maps.
            num_points: P, positions that each head reads of a map.
            value_ratio: width of the values, as a multiple of D.

        Raises:
            ValueError: the width of the values is not a multiple of the number of heads.
        """
        super().__init__()
        inner = round(width * value_ratio)
        if not inner or inner % num_heads:
            raise ValueError(
                f"values of width {inner} cannot be divided among {num_heads} heads; change "
                "num_heads or value_ratio"
            )
        self.shape = (num_heads, num_levels, num_points)
        self.sampling_offsets = nn.Linear(width, 2 * math.prod(self.shape))
        self.attention_weights = nn.Linear(width, math.prod(self.shape))
        self.value_proj = nn.Linear(width, inner)
        self.output_proj = nn.Linear(inner, width)
        self._begin()

    def forward(
        self, queries: Tensor, places: Tensor, maps: Tensor, shapes: Sequence[Shape]
    ) -> Tensor:
        """Return what the queries read, (B, Q, D).

        Args:
            queries: (B, Q, D).
            places: (Q, 2) of the queries, x and y from 0 to 1.
            maps: (B, S, D), all positions of the maps.
            shapes: of the maps.
        """
        batch, num_queries = queries.shape[:2]
        num_heads = self.shape[0]
        values = self.value_proj(maps).unflatten(2, (num_heads, -1))
        weights = self.attention_weights(queries).unflatten(2, (num_heads, -1)).float().softmax(-1)
        offsets = self.sampling_offsets(queries).float()
        offsets = offsets.view(batch, num_queries, *self.shape, 2)
        sizes = offsets.new_tensor([[columns, rows] for rows, columns in shapes])
        asked = places.float()[:, None, None, None] + offsets / sizes[:, None]
        read = deformable_attention(values, shapes, asked, weights.view(offsets.shape[:-1]))
        read_out: Tensor = self.output_proj(read.to(maps.dtype))
        return read_out

    @torch.no_grad()
    def _begin(self) -> None:
        num_heads, num_levels, num_points = self.shape
        angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=1)
        directions /= directions.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, num_points + 1)[:, None]
        places = (directions[:, None, None] * steps).expand(num_heads, num_levels, num_points, 2)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.sampling_offsets.bias.copy_(places.reshape(-1))
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
