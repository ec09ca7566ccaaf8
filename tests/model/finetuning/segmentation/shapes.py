"""Small segmenters and label maps for the tests."""

import torch
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.segmentation.network import ForSegmentation
from model.finetuning.segmentation.settings import (
    IGNORED,
    AdapterSizes,
    Head,
    MaskSizes,
    SegmenterSizes,
)

CONFIG = BEiT3Config(
    24, 4, 2, 48, image_size=32, patch_size=8, fusion_layers=1, vocab_size=60, num_codes=20
)
ADAPTER = AdapterSizes(num_heads=2, num_points=2, channels=4)
MASKS = MaskSizes(
    width=64, num_heads=2, pixel_layers=1, query_layers=2, pixel_hidden=32, query_hidden=32,
    num_queries=6, num_points=64,
)  # fmt: skip
NUM_CLASSES = 3
HEADS: tuple[Head, ...] = ("pyramid", "mask2former")


def sizes(head: Head) -> SegmenterSizes:
    return SegmenterSizes(head, window=3, num_global=2, channels=16, adapter=ADAPTER, masks=MASKS)


def segmenter(head: Head, config: BEiT3Config = CONFIG) -> ForSegmentation:
    torch.manual_seed(0)
    return ForSegmentation(BEiT3(config), NUM_CLASSES, sizes(head)).eval()


def images(number: int = 3, side: int = 32) -> Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(1))


def labels(side: int = 32) -> Tensor:
    """Of three images: two classes, one class and ignored pixels, ignored pixels alone."""
    found = torch.full((3, side, side), IGNORED)
    found[0, : side // 3] = 0
    found[0, side // 3 :] = 2
    found[1, 4:, : side // 2] = 1
    return found
