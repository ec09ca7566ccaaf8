"""Parameters of detection: sizes of the heads, and how detections are chosen."""

from pydantic import Field

from model.finetuning.detection.settings import Suppression
from orchestration.params import StageParams


class HeadParams(StageParams):
    """Sizes of the pyramid and of the heads; the defaults are ViTDet's."""

    channels: int = Field(default=256, ge=1)
    "Channels of the pyramid and of the convolutions of the heads."
    hidden: int = Field(default=1024, ge=1)
    "Width of the fully connected layer of a box head."
    num_convolutions: int = Field(default=4, ge=1)
    "Number of convolutions in each box head and in the mask head."
    window: int = Field(default=14, ge=1)
    "Rows and columns of patches in a window of the encoder's attention."
    num_global: int = Field(default=4, ge=1)
    "Number of blocks whose attention covers the whole image, at even places."
    num_proposals: int = Field(default=1000, ge=1)
    "Number of boxes of an image that the box heads score."
    num_trained: int = Field(default=512, ge=4)
    "Number of boxes of an image that the box heads are trained on."


class ChoiceParams(StageParams):
    """How detections are chosen among the scored boxes of an image."""

    min_score: float = Field(default=0.05, ge=0, lt=1)
    "Score above which a box is a detection."
    suppression: Suppression = "hard"
    "How scores of boxes fall that overlap a better one of their class; the others are soft-NMS."
    max_iou: float = Field(default=0.5, ge=0, le=1)
    "Overlap above which `hard` and `linear` lower a score."
    sigma: float = Field(default=0.5, gt=0)
    "Width of the Gaussian of the overlap by which `gaussian` lowers scores."
    most: int = Field(default=100, ge=1)
    "Number of detections of an image at most; COCO evaluates 100."
