"""Linear heads on frozen features of images and texts, tuned contrastively.

They show whether features that no objective has compared can be aligned by a linear map. The
network is not changed. The loss is that of the contrastive tuning of BEiT-3 (arXiv:2208.10442,
appendix A), on the batches that a seed gives.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.finetuning.contrastive import contrastive_loss
from model.training import randomness

_WIDTH: Final = 128
"Largest width of the compared features."
_STEPS: Final = 200
_BATCH: Final = 256
_LR: Final = 5e-3
_WEIGHT_DECAY: Final = 0.2
_FIRST_SCALE: Final = 2.659
"Logarithm of 1 / 0.07, as in the released code."


@dataclass(frozen=True)
class Heads:
    """A standardization and a linear map for each modality."""

    images: nn.Module
    texts: nn.Module

    @torch.no_grad()
    def aligned(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, D) and (M, E) to comparable ones, (N, W) and (M, W), of length 1."""
        mapped = self.images(images.float()), self.texts(texts.float())
        return F.normalize(mapped[0], dim=1), F.normalize(mapped[1], dim=1)


class _Head(nn.Module):
    def __init__(self, features: Tensor, width: int) -> None:
        super().__init__()
        self.mean = features.mean(0)
        self.std = features.std(0).clamp(min=1e-6)
        self.map = nn.Linear(features.shape[1], width)

    def forward(self, features: Tensor) -> Tensor:
        mapped: Tensor = self.map((features - self.mean) / self.std)
        return mapped


def tune_heads(images: Tensor, texts: Tensor, seed: int) -> Heads:
    """Tune heads on the features of training pairs.

    Args:
        images: (N, D) float, features of at least two images.
        texts: (N, E) float, features of their texts, in the same order.
        seed: of the initial weights and the batches.
    """
    images, texts, number = images.float(), texts.float(), len(images)
    width = min(_WIDTH, images.shape[1], texts.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        heads = Heads(_Head(images, width), _Head(texts, width))
    scale = torch.tensor(_FIRST_SCALE, requires_grad=True)
    weights = [*heads.images.parameters(), *heads.texts.parameters()]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": [scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for step in range(_STEPS):
        rows = torch.from_numpy(randomness.generator(seed, step).permutation(number)[:_BATCH])
        mapped = heads.images(images[rows]), heads.texts(texts[rows])
        loss = contrastive_loss(
            F.normalize(mapped[0], dim=1), F.normalize(mapped[1], dim=1), scale.clamp(max=4.6)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return heads
