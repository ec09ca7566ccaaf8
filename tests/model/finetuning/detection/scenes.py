"""Small detectors and annotated objects for the tests."""

import torch
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.detection.network import ForDetection
from model.finetuning.detection.settings import DetectorSizes
from model.finetuning.detection.targets import Objects, Targets

CONFIG = BEiT3Config(
    24, 2, 2, 48, image_size=64, patch_size=8, fusion_layers=1, vocab_size=60, num_codes=20
)
SIZES = DetectorSizes(
    channels=16, hidden=24, num_convolutions=1, window=6, num_proposals=60, num_trained=32
)
NUM_CLASSES = 3


def detector(sizes: DetectorSizes = SIZES) -> ForDetection:
    torch.manual_seed(0)
    return ForDetection(BEiT3(CONFIG), NUM_CLASSES, sizes).eval()


def objects(boxes: list[list[float]], classes: list[int], side: int = 64) -> Objects:
    """Objects that fill their boxes."""
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[round(top) : round(bottom), round(left) : round(right)] = True
    return Objects(
        torch.tensor(boxes).view(-1, 4).float(),
        torch.tensor(classes, dtype=torch.long),
        masks,
        torch.ones(len(boxes), dtype=torch.bool),
    )


def joined(some: list[Objects]) -> Targets:
    fields = zip(*(vars(each).values() for each in some), strict=True)
    return Targets(Objects(*map(torch.cat, fields)), tuple(map(len, some)))


IMAGES = [
    objects([[4, 8, 30, 40], [30, 30, 60, 62]], [0, 2]),
    objects([], []),
    objects([[10, 10, 50, 20]], [1]),
]


def images(number: int = len(IMAGES), side: int = 64) -> Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(1))
