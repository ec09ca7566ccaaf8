"""Semantic segmentation as a network of a task."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.finetuning.dense_backbone import DenseBackbone, keep_vision
from model.finetuning.segmentation.adapter import MULTIPLE, ViTAdapter
from model.finetuning.segmentation.pyramid_head import PyramidHead
from model.finetuning.segmentation.settings import Head, SegmenterSizes
from model.finetuning.task_networks import TaskNetwork
from model.network.beit3 import BEiT3


def side_multiple(head: Head, patch_size: int) -> int:
    """Return the number of pixels that the sides of a head's images are multiples of."""
    return 2 * patch_size if head == "pyramid" else math.lcm(patch_size, MULTIPLE)


class ForSegmentation(TaskNetwork):
    """The encoder with one of the heads."""

    def __init__(self, network: BEiT3, num_classes: int, sizes: SegmenterSizes) -> None:
        """Take over a network, of which only the vision encoder is kept.

        Raises:
            ValueError: sizes of the head do not fit together or to the encoder.
        """
        super().__init__(network)
        keep_vision(network)
        self.num_classes, self.sizes = num_classes, sizes
        width = network.config.width
        self.adapter: ViTAdapter | None = None
        self.head: Any
        if sizes.head == "pyramid":
            self.head = PyramidHead(width, num_classes, sizes.channels, sizes.class_balance)
        else:
            from model.finetuning.segmentation.mask2former import Mask2FormerHead

            self.adapter = ViTAdapter(width, sizes.adapter)
            self.head = Mask2FormerHead(width, num_classes, sizes.masks)

    def losses(
        self,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        residual_scale: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses (B,) of images, which add up to what is minimized.

        Args:
            images: (B, 3, H, W) float, normalized; the sides are multiples of
                :func:`side_multiple`.
            labels: (B, H, W) long, ``IGNORED`` where a pixel does not count.
            seeds: of each image in this step.
            residual_scale: (depth, 2, B) float, factors of the residual branches.

        Raises:
            ValueError: a side is not such a multiple.
        """
        losses: dict[str, Tensor] = self.head.losses(
            self._maps(images, residual_scale), labels, seeds
        )
        return losses

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Return the scores (B, C, H, W) of the classes at each pixel; see :meth:`losses`."""
        scores: Tensor = self.head.scores(
            self._maps(images, None), (images.shape[2], images.shape[3])
        )
        return scores

    def _maps(self, images: Tensor, residual_scale: Tensor | None) -> Any:
        multiple = side_multiple(self.sizes.head, self.network.config.patch_size)
        if any(side % multiple for side in images.shape[2:]):
            raise ValueError(
                f"images of {tuple(images.shape[2:])} pixels; the head {self.sizes.head} needs "
                f"sides that are multiples of {multiple}"
            )
        backbone = DenseBackbone(self.network, self.sizes.window, self.sizes.num_global)
        if self.adapter is None:
            return backbone(images, residual_scale)
        return self.adapter(backbone, images, residual_scale)
