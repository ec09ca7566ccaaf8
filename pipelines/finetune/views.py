"""Views: the stored images of examples → pixels of the network's size, for training and evaluation.

Training cuts a random box, resizes it, mirrors half of the cuts, and changes them by RandAugment,
color jitter and erasing, in this order. Every image is drawn for itself: the two images of an
example of NLVR2 may be cut and mirrored differently, as in the released code. A draw is a pure
function of (seed, step, slot, image of the example), hence the views do not depend on how a batch
is divided, and any number of threads may build them at once.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dataprep.images import Pixels
from orchestration.params import StageParams

Ints = NDArray[np.int64]


class AugmentParams(StageParams):
    """Changes of training images; the defaults are those of the vision-language tasks."""

    min_crop_scale: float = Field(default=0.5, gt=0, le=1)
    "Smallest fraction of an image's area that a training crop covers."
    flip: bool = True
    "Whether half of the training crops are mirrored."
    rand_augment: Literal["none", "released", "imagenet"] = "none"
    "RandAugment of the released vision-language tasks or of timm's ImageNet training, or none."
    color_jitter: float = Field(default=0, ge=0, lt=1)
    "Largest relative change of brightness, contrast and saturation of a training crop."
    random_erasing: float = Field(default=0, ge=0, le=1)
    "Fraction of training crops in which noise replaces a random box, as in timm's pixel mode."


class TrainingViews:
    """Cuts and changes the images of training examples."""

    def __init__(self, params: AugmentParams, image_size: int, seed: int) -> None:
        """Prepare the views of a training; ``image_size`` is S, the side in pixels."""
        self.params, self.image_size, self.seed = params, image_size, seed

    def __call__(
        self, jpegs: Sequence[Sequence[bytes]], names: Sequence[str], step: int, slots: Ints
    ) -> Pixels:
        """Return the views (B, I, S, S, 3), RGB.

        Args:
            jpegs: the I stored images of each of B examples.
            names: (B,) names of the examples, for errors.
            step: of the training.
            slots: (B,) slot of each example in the step's batch.

        Raises:
            ImageError: a stored image is damaged; the message names its example.
        """
        raise NotImplementedError


class EvaluationViews:
    """Resizes the images of examples that are predicted."""

    def __init__(self, image_size: int, crop_mode: Literal["squash", "center"] = "squash") -> None:
        """Prepare the views of a prediction.

        Args:
            image_size: S, the side in pixels.
            crop_mode: ``squash`` gives up the aspect ratio, as the released vision-language tasks
                do; ``center`` keeps it and cuts the square in the middle, as for ImageNet.
        """
        self.image_size, self.crop_mode = image_size, crop_mode

    def __call__(self, jpegs: Sequence[Sequence[bytes]], names: Sequence[str]) -> Pixels:
        """Return the views (B, I, S, S, 3), RGB; for arguments and errors see TrainingViews."""
        raise NotImplementedError
