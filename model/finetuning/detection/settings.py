"""Sizes of the detection heads, and how detections are chosen; the defaults are ViTDet's."""

from dataclasses import dataclass
from typing import Literal

Suppression = Literal["hard", "linear", "gaussian"]
"How the scores of boxes fall that overlap a better box of the same class."


@dataclass(frozen=True)
class DetectorSizes:
    """What fixes the parameters of the heads, and which blocks attend to the whole image."""

    channels: int = 256
    "Channels of the pyramid and of the convolutions of all heads."
    hidden: int = 1024
    "Width of the fully connected layer of a box head."
    num_convolutions: int = 4
    "Convolutions of each box head and of the mask head."
    window: int = 14
    "Rows and columns of patches in a window of the encoder's attention."
    num_global: int = 4
    "Blocks of the encoder that attend to the whole image."
    num_proposals: int = 1000
    "Boxes of an image that the box heads score."
    num_trained: int = 512
    "Boxes of an image that the box heads are trained on, at most a quarter of them objects."
    with_masks: bool = True
    "Whether there is a mask head; Objects365 has boxes alone."


@dataclass(frozen=True)
class Choice:
    """How detections are chosen among the scored boxes of an image."""

    min_score: float = 0.05
    "Smallest score of a detection."
    suppression: Suppression = "hard"
    "``linear`` and ``gaussian`` are soft-NMS (arXiv:1704.04503)."
    max_iou: float = 0.5
    "Overlap with a better box above which ``hard`` and ``linear`` lower a score."
    sigma: float = 0.5
    "Width of the Gaussian by which ``gaussian`` lowers scores."
    most: int = 100
    "Most detections of an image; COCO evaluates this many."
