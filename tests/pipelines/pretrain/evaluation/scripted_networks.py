"""Networks whose predictions are known, and pairs on which they can be judged by hand."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from model.network.beit3 import Encoded
from model.training.batch import MicroBatch
from pipelines.pretrain.evaluation.inputs import MaskedPairs
from tokenizer.text import BOS, EOS, FIRST_PIECE

NUM_CLASSES = 60
NUM_PATCHES = 4
MASK = NUM_CLASSES - 1
CONFIG = SimpleNamespace(num_patches=NUM_PATCHES)


class Scripted(nn.Module):
    """Predicts one class at all positions: that of the partner, or the same for every pair."""

    def __init__(self, looks: bool = True) -> None:
        super().__init__()
        self.looks, self.config = looks, CONFIG
        self.mlm_head = self.mim_head = nn.Identity()

    def forward(self, images: Tensor, text_ids: Tensor, image_mask=None, **other) -> Encoded:
        """The class of an image is its color, that of a caption its first piece."""
        if not self.looks:
            known = torch.full((len(images),), FIRST_PIECE)
        elif image_mask is None:
            known = images[:, 0, 0, 0].long()
        else:
            known = text_ids[:, 1]
        logits = torch.zeros(len(images), 1 + NUM_PATCHES + text_ids.shape[1], NUM_CLASSES)
        logits[torch.arange(len(images)), :, known] = 1.0
        return Encoded(logits, 1 + NUM_PATCHES)


def colored_pairs(number: int, length: int = 5) -> MaskedPairs:
    """Pair i: an image of the color c = 4 + i, all codes c; a caption of ``length`` times piece c.

    Every piece is a word. Words 2 and 3 are masked, and patches 0 and 3.
    """
    color = FIRST_PIECE + torch.arange(number)
    pieces = color[:, None].expand(-1, length)
    ends = torch.full((number, 1), EOS)
    ids = torch.cat([torch.full((number, 1), BOS), pieces, ends], 1)
    words = torch.cat([ends * 0 - 1, torch.arange(length).expand(number, -1), ends * 0 - 1], 1)
    masked = (words == 2) | (words == 3)
    batch = MicroBatch(
        "pair",
        images=color.float()[:, None, None, None].expand(-1, 3, 8, 8),
        codes=color[:, None].expand(-1, NUM_PATCHES),
        image_mask=torch.tensor([True, False, False, True]).expand(number, -1),
        text_ids=torch.where(masked, MASK, ids),
        text_targets=ids,
        text_mask=masked,
    )
    return MaskedPairs(batch, words)
