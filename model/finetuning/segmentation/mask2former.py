"""Mask2Former (arXiv:2112.01527) on given maps, from the parts that transformers has of it.

Each query predicts a class, or none, and a mask. In training the classes of an image are matched
with queries; the mask of a class is all of its pixels, so an ignored pixel is in no mask. The loss
compares masks at random points.

The loss of an image is computed alone: its masks are counted, its classes averaged and its points
drawn without regard to the rest of the batch, from a seed of its own.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerLoss,
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

from model.finetuning.segmentation.settings import IGNORED, MaskSizes

Size = tuple[int, int]
"Height and width in pixels."
_NUM_MAPS: Final = 4


def config_of(num_classes: int, sizes: MaskSizes) -> Mask2FormerConfig:
    """Return the configuration that transformers builds the parts from."""
    return Mask2FormerConfig(
        num_labels=num_classes,
        feature_size=sizes.width,
        mask_feature_size=sizes.width,
        hidden_dim=sizes.width,
        num_attention_heads=sizes.num_heads,
        encoder_layers=sizes.pixel_layers,
        decoder_layers=sizes.query_layers + 1,  # transformers counts the queries' first masks
        encoder_feedforward_dim=sizes.pixel_hidden,
        dim_feedforward=sizes.query_hidden,
        num_queries=sizes.num_queries,
        train_num_points=sizes.num_points,
    )


class Mask2FormerHead(Mask2FormerPreTrainedModel):
    """Pixel decoder, decoder of the queries, and their loss."""

    def __init__(self, width: int, num_classes: int, sizes: MaskSizes) -> None:
        """Build the head of four maps with ``width`` channels, of strides 4, 8, 16 and 32."""
        config = config_of(num_classes, sizes)
        super().__init__(config)
        self.pixel_decoder = Mask2FormerPixelDecoder(config, [width] * _NUM_MAPS)
        self.query_decoder = Mask2FormerTransformerModule(config.feature_size, config)
        self.class_predictor = nn.Linear(config.hidden_dim, num_classes + 1)
        self.loss_weights = {
            "loss_cross_entropy": config.class_weight,
            "loss_mask": config.mask_weight,
            "loss_dice": config.dice_weight,
        }
        self.criterion = Mask2FormerLoss(config, self.loss_weights)
        self.post_init()
        # The weights of the classes follow from the configuration, so no checkpoint holds them.
        self.criterion.register_buffer(
            "empty_weight", self.criterion.empty_weight, persistent=False
        )

    def forward(self, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Return what the queries predict at first and after each layer, in fp32.

        ``class_queries_logits`` is (B, Q, C + 1), whose last class is none, and
        ``masks_queries_logits`` (B, Q, h, w) in the size of the largest map.
        """
        pixels = self.pixel_decoder(list(maps), output_hidden_states=False, return_dict=True)
        queries = self.query_decoder(
            multi_scale_features=pixels.multi_scale_features,
            mask_features=pixels.mask_features,
            output_hidden_states=True,
            output_attentions=False,
        )
        return [
            {
                "class_queries_logits": self.class_predictor(hidden.transpose(0, 1)).float(),
                "masks_queries_logits": masks.float(),
            }
            for hidden, masks in zip(
                queries.intermediate_hidden_states, queries.masks_queries_logits, strict=True
            )
        ]

    def losses(
        self, maps: Sequence[Tensor], labels: Tensor, seeds: Sequence[int]
    ) -> dict[str, Tensor]:
        """Return the weighted losses (B,) of classes, masks and dice, each over all layers.

        Args:
            maps: as in :meth:`forward`.
            labels: (B, H, W) long.
            seeds: of each image in this step; they decide at which points masks are compared.
        """
        layers = self(maps)
        with torch.autocast(labels.device.type, enabled=False):
            each = [
                self._losses_of(i, layers, of_image, seed)
                for i, (of_image, seed) in enumerate(zip(labels, seeds, strict=True))
            ]
        return {
            name.removeprefix("loss_"): torch.stack([losses[name] for losses in each])
            for name in self.loss_weights
        }

    @torch.no_grad()
    def scores(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Return scores (B, C, H, W) of images of a size."""
        return semantic_scores(**self(maps)[-1], size=size)

    def _losses_of(
        self, number: int, layers: Sequence[dict[str, Tensor]], labels: Tensor, seed: int
    ) -> dict[str, Tensor]:
        """Return the sum over the layers of each weighted loss of one image."""
        mine = [{k: v[number : number + 1] for k, v in layer.items()} for layer in layers]
        classes = labels.unique()
        classes = classes[classes != IGNORED]
        if not len(classes):  # nothing to match: all queries stand for none
            return self._losses_of_none(mine)
        masks = (labels == classes[:, None, None]).float()
        devices = [labels.device] if labels.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            found = self.criterion(
                **mine[-1],
                mask_labels=[masks],
                class_labels=[classes],
                auxiliary_predictions=mine[:-1],
            )
        return {
            name: weight * torch.stack([v for k, v in found.items() if k.startswith(name)]).sum()
            for name, weight in self.loss_weights.items()
        }

    def _losses_of_none(self, layers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses of an image without any labeled pixel: of classes alone."""
        logits = torch.cat([layer["class_queries_logits"][0] for layer in layers])
        none = torch.full((len(logits),), self.config.num_labels, device=logits.device)
        loss = len(layers) * F.cross_entropy(logits, none)
        zero = loss.new_zeros(())
        weighted = self.loss_weights["loss_cross_entropy"] * loss
        return dict.fromkeys(self.loss_weights, zero) | {"loss_cross_entropy": weighted}


def semantic_scores(
    class_queries_logits: Tensor, masks_queries_logits: Tensor, size: Size, **_: Any
) -> Tensor:
    """Return scores (B, C, H, W) in fp32: for each class the sum over queries of class times mask.

    Args:
        class_queries_logits: (B, Q, C + 1).
        masks_queries_logits: (B, Q, h, w).
        size: height and width of the image.
    """
    masks = F.interpolate(masks_queries_logits, size, mode="bilinear", align_corners=False)
    classes = class_queries_logits.softmax(dim=2)[..., :-1]
    with torch.autocast(masks.device.type, enabled=False):
        return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())
