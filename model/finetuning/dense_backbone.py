"""The vision encoder as the backbone of dense prediction: one feature map of an image of any size.

The form is ViTDet's (arXiv:2203.16527, section 3): attention within windows, and over the whole
image in a few blocks at even places. Differences, both for equality with the pretrained encoder:

- The class token stays. Each window attends to a copy of it; the copies are averaged where windows
  are joined. With one window this is the plain encoder, to the last layer.
- Positions that pad the last windows are masked out of the attention. ViTDet attends to them.

Windows are cut once for a run of consecutive blocks, so the experts run on the padding, too. The
price is a fifth of their work at 64 x 64 patches, and a tenth at 80 x 80.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.beit3 import BEiT3
from model.network.loading import interpolate_positions
from model.network.multiway import Block, Multiway, Parts

Grid = tuple[int, int]
"Rows and columns of patches."


def keep_vision(network: BEiT3) -> None:
    """Remove all that an image alone does not use: embedding and experts of texts and of pairs.

    The network then has no forward of its own; :class:`DenseBackbone` runs it.
    """
    del network.language
    for module in list(network.modules()):
        if isinstance(module, Multiway):
            del module.language
        elif isinstance(module, Block):
            module.fusion = None


@dataclass(frozen=True, eq=False)
class DenseBackbone:
    """Runs a network of :func:`keep_vision`, or a whole one, on images of any size."""

    network: BEiT3
    window: int = 14
    "Rows and columns of patches in a window; a smaller image has one window."
    num_global: int = 4
    "Blocks whose attention covers the whole image, at even places; the last block is one."

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """Return the numbers of the blocks that attend to the whole image."""
        depth = self.network.config.depth
        number = min(self.num_global, depth)
        return tuple((i + 1) * depth // number - 1 for i in range(number))

    def __call__(self, images: Tensor, residual_scale: Tensor | None = None) -> Tensor:
        """Return the feature map (B, D, H / patch size, W / patch size) after the last block.

        Args:
            images: (B, 3, H, W) float, normalized; H and W are multiples of the patch size.
            residual_scale: (depth, 2, B) float, factors of the residual branches.

        Raises:
            ValueError: the images have another shape.
        """
        x, grid = self.embed(images)
        x = self.through(x, grid, 0, self.network.config.depth, residual_scale)
        return self.feature_map(x, grid)

    def embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Return the class token and the patches with positions, (B, 1 + N, D), and their grid.

        Positions are interpolated (bicubic) from the network's grid to that of the images.

        Raises:
            ValueError: see :meth:`__call__`.
        """
        size = self.network.config.patch_size
        if images.ndim != 4 or images.shape[1] != 3 or any(n % size for n in images.shape[2:]):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; give (B, 3, height, width), both "
                f"multiples of patch_size {size}"
            )
        vision = self.network.vision
        patches = vision.patch(images)
        grid = (patches.shape[2], patches.shape[3])
        x = torch.cat(
            [
                vision.class_token.expand(len(images), 1, -1),
                patches.flatten(2).transpose(1, 2),
            ],
            dim=1,
        )
        return x + interpolate_positions(vision.positions, grid), grid

    def through(
        self, x: Tensor, grid: Grid, first: int, stop: int, residual_scale: Tensor | None = None
    ) -> Tensor:
        """Apply the blocks ``first`` to ``stop`` - 1; a caller may do so in several parts.

        Args:
            x: (B, 1 + N, D), class token first.
            grid: of the patches.
            first: number of the first block.
            stop: number after that of the last block.
            residual_scale: see :meth:`__call__`; of all blocks of the network.
        """
        is_windowed = self.window < max(grid)
        everywhere = self.global_blocks if is_windowed else range(stop)
        for is_global, some in groupby(range(first, stop), lambda block: block in everywhere):
            if is_global:
                x = self._apply(x, some, None, residual_scale)
                continue
            scale = residual_scale
            if scale is not None:
                scale = scale.repeat_interleave(self._num_windows(grid), dim=2)
            windows, mask = self._cut(x, grid)
            x = self._join(self._apply(windows, some, mask, scale), grid)
        return x

    def feature_map(self, x: Tensor, grid: Grid) -> Tensor:
        """Return the patches of (B, 1 + N, D) as a map (B, D, *grid), after the final norm."""
        if self.network.norm is not None:
            x, _ = self.network.norm((x, None))
        return x[:, 1:].transpose(1, 2).unflatten(2, grid)

    def _apply(
        self, x: Tensor, blocks: Iterator[int], mask: Tensor | None, scale: Tensor | None
    ) -> Tensor:
        parts: Parts = (x, None)
        for number in blocks:
            factors = None if scale is None else scale[number]
            block, kept = self.network.blocks[number], self.network.activation_checkpointing
            parts = block(parts, mask, factors, False, recomputing=kept)
        assert parts[0] is not None
        return parts[0]

    def _sides(self, grid: Grid) -> tuple[int, int]:
        """Return the rows and columns of a window."""
        return min(self.window, grid[0]), min(self.window, grid[1])

    def _num_windows(self, grid: Grid) -> int:
        rows, columns = self._sides(grid)
        return -(-grid[0] // rows) * -(-grid[1] // columns)

    def _cut(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
        """Return windows (B * windows, 1 + rows * columns, D), class token first, and a mask.

        The mask (B * windows, 1, 1, 1 + rows * columns) is True for what is no padding; None
        without any.
        """
        map_ = x[:, 1:].unflatten(1, grid)
        windows = self._partition(map_, grid)
        tokens = x[:, :1].repeat_interleave(self._num_windows(grid), dim=0)
        rows, columns = self._sides(grid)
        mask = None
        if grid[0] % rows or grid[1] % columns:
            is_patch = torch.ones((1, *grid, 1), dtype=torch.bool, device=x.device)
            mask = F.pad(self._partition(is_patch, grid)[..., 0], (1, 0), value=True)
            mask = mask.repeat(len(x), 1)[:, None, None]
        return torch.cat([tokens, windows], dim=1), mask

    def _partition(self, map_: Tensor, grid: Grid) -> Tensor:
        """Cut (B, *grid, D) into (B * windows, rows * columns, D), padded at bottom and right."""
        rows, columns = self._sides(grid)
        padded = F.pad(map_, (0, 0, 0, -grid[1] % columns, 0, -grid[0] % rows))
        cut = padded.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))
        return cut.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def _join(self, windows: Tensor, grid: Grid) -> Tensor:
        """Undo :meth:`_cut`; the class token becomes the mean of its copies."""
        rows, columns = self._sides(grid)
        down, across = -(-grid[0] // rows), -(-grid[1] // columns)
        tokens = windows[:, 0].unflatten(0, (-1, down * across)).mean(dim=1, keepdim=True)
        cut = windows[:, 1:].unflatten(1, (rows, columns)).unflatten(0, (-1, down, across))
        map_ = cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]
        return torch.cat([tokens, map_.flatten(1, 2)], dim=1)
