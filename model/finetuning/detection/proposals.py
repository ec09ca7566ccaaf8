"""The region proposal network: boxes that may hold an object, from anchors on every map.

torchvision's network with two convolutions, as in ViTDet; the absolute difference as box loss, and
a fixed divisor, as in Detectron2. Anchors are eight positions wide on their map.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)

from model.finetuning.detection.pooling import full
from model.finetuning.detection.sampling import sample
from model.finetuning.detection.settings import DetectorSizes
from model.finetuning.detection.targets import Objects

_ASPECT_RATIOS: Final = (0.5, 1.0, 2.0)
_POSITIONS: Final = 8
"Side of a square anchor in positions of its map."
_SAMPLED: Final = 256
"Anchors of an image that are trained on, at most half of them positive."
_MODES: Final = ("training", "testing")
_PURPOSE: Final = 0


class Proposals(nn.Module):
    """Proposes boxes, and learns which anchors hold an object."""

    def __init__(self, sizes: DetectorSizes, strides: Sequence[int]) -> None:
        """Build the network for maps with these pixels between positions."""
        super().__init__()
        anchors = AnchorGenerator(
            tuple((_POSITIONS * stride,) for stride in strides), (_ASPECT_RATIOS,) * len(strides)
        )
        head = RPNHead(sizes.channels, len(_ASPECT_RATIOS), conv_depth=2)
        number = sizes.num_proposals
        compared, kept = {"training": 2 * number, "testing": number}, dict.fromkeys(_MODES, number)
        self.network = RegionProposalNetwork(
            anchors, head, 0.7, 0.3, _SAMPLED, 0.5, compared, kept, 0.7
        )

    def forward(
        self,
        images: Tensor,
        maps: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        objects: Sequence[Objects] | None = None,
        seeds: Sequence[int] = (),
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return proposals (n, 4) of each image, and losses (B,) if ``objects`` are given.

        Args:
            images: (B, 3, H, W), for their size alone.
            maps: of the pyramid.
            sizes: height and width of each image without padding, to which boxes are clipped.
            objects: annotated ones of each image.
            seeds: of each image in this step.
        """
        network = self.network
        logits, deltas = network.head(list(maps))
        anchors = network.anchor_generator(ImageList(images, list(sizes)), list(maps))
        per_level = [of_level[0].numel() for of_level in logits]
        flat, deltas = concat_box_prediction_layers(logits, deltas)
        flat, deltas = full(flat).view(len(images), -1), full(deltas)
        boxes = network.box_coder.decode(deltas.detach(), anchors).view(len(images), -1, 4)
        proposals, _ = network.filter_proposals(boxes, flat, list(sizes), per_level)
        if objects is None:
            return proposals, {}
        deltas = deltas.view(len(images), -1, 4)
        return proposals, self._losses(flat, deltas, anchors, objects, seeds)

    def _losses(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Sequence[Tensor],
        objects: Sequence[Objects],
        seeds: Sequence[int],
    ) -> dict[str, Tensor]:
        found = [{"boxes": some.boxes} for some in objects]
        labels, matched = self.network.assign_targets_to_anchors(list(anchors), found)
        objectness, regression = [], []
        for i, label in enumerate(labels):
            some = sample(label == 1, label == 0, _SAMPLED, _SAMPLED // 2, seeds[i], _PURPOSE)
            loss = F.binary_cross_entropy_with_logits(logits[i, some], label[some], reduction="sum")
            objectness.append(loss / _SAMPLED)
            positive = some[label[some] == 1]
            wanted = self.network.box_coder.encode_single(
                matched[i][positive], anchors[i][positive]
            )
            regression.append((deltas[i, positive] - wanted).abs().sum() / _SAMPLED)
        return {"objectness": torch.stack(objectness), "proposal_box": torch.stack(regression)}
