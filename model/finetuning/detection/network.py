"""Detection and instance segmentation as a network of a task."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.finetuning.dense_backbone import DenseBackbone, keep_vision
from model.finetuning.detection.cascade import Cascade
from model.finetuning.detection.masks import MaskHead
from model.finetuning.detection.proposals import Proposals
from model.finetuning.detection.pyramid import STRIDE_MULTIPLE, SimpleFeaturePyramid, strides
from model.finetuning.detection.settings import Choice, DetectorSizes
from model.finetuning.detection.suppression import suppressed
from model.finetuning.detection.targets import Targets
from model.finetuning.finite import require_finite
from model.finetuning.task_networks import TaskNetwork
from model.network.beit3 import BEiT3

Size = tuple[int, int]
"Height and width of an image in pixels."


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first."""

    boxes: Tensor
    "(n, 4) float32 in pixels of the input image."
    scores: Tensor
    "(n,) float32."
    classes: Tensor
    "(n,) long."
    masks: Tensor | None
    "(n, 28, 28) float32, probabilities in the frame of each box; None without a mask head."


class ForDetection(TaskNetwork):
    """The encoder with pyramid, proposals, cascade and, for masks, a mask head."""

    def __init__(self, network: BEiT3, num_classes: int, sizes: DetectorSizes) -> None:
        """Take over a network, of which only the vision encoder is kept."""
        super().__init__(network)
        keep_vision(network)
        self.num_classes, self.sizes = num_classes, sizes
        config = network.config
        self.strides = strides(config.patch_size)
        self.pyramid = SimpleFeaturePyramid(config.width, sizes.channels)
        self.proposals = Proposals(sizes, self.strides)
        self.cascade = Cascade(sizes, num_classes)
        self.mask_head = MaskHead(sizes, num_classes) if sizes.with_masks else None

    def maps(self, images: Tensor, residual_scale: Tensor | None = None) -> list[Tensor]:
        """Return the pyramid's maps of images.

        Args:
            images: (B, 3, H, W) float, normalized; the sides are multiples of four patches.
            residual_scale: (depth, 2, B) float.

        Raises:
            ValueError: a side is not such a multiple.
        """
        multiple = STRIDE_MULTIPLE * self.network.config.patch_size
        if any(side % multiple for side in images.shape[2:]):
            raise ValueError(
                f"images of {tuple(images.shape[2:])} pixels; pad both sides to a multiple of "
                f"{multiple}, which is four patches"
            )
        backbone = DenseBackbone(self.network, self.sizes.window, self.sizes.num_global)
        maps: list[Tensor] = self.pyramid(backbone(images, residual_scale))
        return maps

    def losses(
        self,
        images: Tensor,
        targets: Targets,
        seeds: Sequence[int],
        residual_scale: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses (B,) of images, which add up to what is minimized.

        Args:
            images: see :meth:`maps`.
            targets: annotated objects.
            seeds: of each image in this step; they decide which boxes are trained on.
            residual_scale: see :meth:`maps`.
        """
        maps, objects = self.maps(images, residual_scale), targets.of_images()
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        proposals, losses = self.proposals(images, maps, sizes, objects, seeds)
        found, matched = self.cascade.losses(
            maps[:-1], self.strides[:-1], proposals, sizes, objects, seeds
        )
        losses |= found
        if self.mask_head is not None:
            losses["mask"] = self.mask_head.losses(
                maps[:-1], self.strides[:-1], matched, objects, self.num_classes
            )
        return losses

    @torch.no_grad()
    def scored_boxes(
        self, images: Tensor, sizes: Sequence[Size]
    ) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """Return (boxes (n, 4) and class scores (n, C) of each image, maps of the pyramid).

        Args:
            images: see :meth:`maps`.
            sizes: of each image without padding.

        Raises:
            NotFinite: maps or scores are no numbers, of which no box would be left.
        """
        maps = self.maps(images)
        require_finite([each.abs().amax().item() for each in maps], "maps of the images")
        proposals, _ = self.proposals(images, maps, sizes)
        found = self.cascade.detect(maps[:-1], self.strides[:-1], proposals, sizes)
        require_finite([scores.sum().item() for _, scores in found], "scores of the boxes")
        return found, maps

    @torch.no_grad()
    def masks_of(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], classes: Sequence[Tensor]
    ) -> list[Tensor] | None:
        """Return probabilities (n, 28, 28) of the masks of boxes; None without a mask head."""
        if self.mask_head is None:
            return None
        logits = self.mask_head(maps[:-1], self.strides[:-1], boxes, torch.cat(list(classes)))
        return list(logits.sigmoid().split([len(some) for some in boxes]))

    def detect(self, images: Tensor, sizes: Sequence[Size], choice: Choice) -> list[Detections]:
        """Return the objects that are found in each image.

        Args:
            images: see :meth:`maps`.
            sizes: of each image without padding.
            choice: how they are chosen.
        """
        scored, maps = self.scored_boxes(images, sizes)
        found = [suppressed(boxes, scores, choice) for boxes, scores in scored]
        chosen = [boxes[index] for (boxes, _), (index, _, _) in zip(scored, found, strict=True)]
        masks = self.masks_of(maps, chosen, [classes for _, classes, _ in found])
        return [
            Detections(boxes, scores, classes, None if masks is None else masks[i])
            for i, (boxes, (_, classes, scores)) in enumerate(zip(chosen, found, strict=True))
        ]
