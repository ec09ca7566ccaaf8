"""Views: the stored images of examples → pixels of the network's size, for training and evaluation.

Training cuts a random box, resizes it, mirrors half of the cuts, and changes them by RandAugment,
color jitter and erasing, in this order. Every image is drawn for itself: the two images of an
example of NLVR2 may be cut and mirrored differently, as in the released code. A draw is a pure
function of (seed, step, slot, image of the example), hence the views do not depend on how a batch
is divided, and any number of threads may build them at once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from dataprep import rand_augment
from dataprep.color_jitter import NUM_UNIFORMS as NUM_OF_JITTER
from dataprep.color_jitter import jitter_color
from dataprep.images import Pixels, decode_stored
from dataprep.random_erasing import erase
from dataprep.randomness import rng_of
from dataprep.views import random_view
from model.training import randomness
from orchestration.params import StageParams

Ints = NDArray[np.int64]
Uniforms = NDArray[np.float64]

_CUT, _OPERATIONS, _JITTER, _ERASING = range(4)
"Purposes of random numbers; each purpose has its own seed, so that draws are independent."

_MOST_ASPECT: Final = 8
"Sides of an image that is scaled as a whole before its middle is cut out, long to short."

CropMode = Literal["squash", "center"]
"How an image gets its square form: by another aspect ratio, or by its middle alone."


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
        """Prepare the views of a training.

        Args:
            params: how images are changed.
            image_size: S, the side of a view in pixels.
            seed: of all draws.
        """
        self.params, self.image_size, self.seed = params, image_size, seed
        self._num_uniforms, self._rand_augment = _rand_augment(params.rand_augment)

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
        views = _empty(jpegs, self.image_size)
        shape = views.shape[:2]
        of_operations = self._uniforms(_OPERATIONS, step, slots, shape, self._num_uniforms)
        of_jitter = self._uniforms(_JITTER, step, slots, shape, NUM_OF_JITTER)
        for where, pixels in _decoded(jpegs, names):
            view = self._cut(pixels, f"{step}/{slots[where[0]]}", where[1])
            view = self._rand_augment(view, of_operations[where])
            views[where] = view
            if self.params.color_jitter:
                jitter_color(views[where], self.params.color_jitter, of_jitter[where], views[where])
            if self.params.random_erasing:
                rng = rng_of(self._seed(_ERASING), step, slots[where[0]], where[1])
                erase(views[where], self.params.random_erasing, rng)
        return views

    def _cut(self, pixels: Pixels, sample: str, image: int) -> Pixels:
        """Return a random box of an image, resized and perhaps mirrored."""
        height, width = pixels.shape[:2]
        x, y, width, height, flip = random_view(
            width,
            height,
            self.params.min_crop_scale,
            self._seed(_CUT),
            sample,
            image,
            flip=self.params.flip,
        )
        box = pixels[y : y + height, x : x + width]
        square = _resized(box, self.image_size, self.image_size)
        return np.asarray(cv2.flip(square, 1), np.uint8) if flip else square

    def _seed(self, purpose: int) -> int:
        return int(randomness.bits(self.seed, purpose))

    def _uniforms(
        self, purpose: int, step: int, slots: Ints, shape: tuple[int, ...], count: int
    ) -> Uniforms:
        """Return (B, I, count) random numbers in [0, 1)."""
        images, numbers = np.arange(shape[1])[:, None], np.arange(count)
        return randomness.uniform(self._seed(purpose), step, slots[:, None, None], images, numbers)


class EvaluationViews:
    """Resizes the images of examples that are predicted."""

    def __init__(self, image_size: int, crop_mode: CropMode = "squash") -> None:
        """Prepare the views of a prediction.

        Args:
            image_size: S, the side of a view in pixels.
            crop_mode: ``squash`` gives up the aspect ratio, as the released vision-language tasks
                do; ``center`` keeps it and cuts out the middle, as the released ImageNet network.
        """
        self.image_size, self.crop_mode = image_size, crop_mode

    def __call__(self, jpegs: Sequence[Sequence[bytes]], names: Sequence[str]) -> Pixels:
        """Return the views (B, I, S, S, 3), RGB.

        Args:
            jpegs: the I stored images of each of B examples.
            names: (B,) names of the examples, for errors.

        Raises:
            ImageError: a stored image is damaged; the message names its example.
        """
        views = _empty(jpegs, self.image_size)
        for where, pixels in _decoded(jpegs, names):
            views[where] = self.square(pixels)
        return views

    def square(self, pixels: Pixels) -> Pixels:
        """Return the view (S, S, 3) of an image (height, width, 3)."""
        if self.crop_mode == "squash":
            return _resized(pixels, self.image_size, self.image_size)
        return _middle(pixels, self.image_size)


def _rand_augment(name: str) -> tuple[int, Callable[[Pixels, Uniforms], Pixels]]:
    """Return how many random numbers a RandAugment takes, and its function."""
    if name == "released":
        return rand_augment.NUM_UNIFORMS, rand_augment.rand_augment
    if name == "imagenet":
        # timm takes seconds to import, and recipes need only the parameters.
        from pipelines.finetune import imagenet_augment

        return imagenet_augment.NUM_UNIFORMS, imagenet_augment.imagenet_rand_augment
    return 0, lambda pixels, uniforms: pixels


def _empty(jpegs: Sequence[Sequence[bytes]], size: int) -> Pixels:
    """Return memory for the views.

    Raises:
        ValueError: an example has more or fewer images than the first.
    """
    num_images = len(jpegs[0]) if len(jpegs) else 0
    for i, images in enumerate(jpegs):
        if len(images) != num_images:
            raise ValueError(
                f"example {i} of a batch has {len(images)} images, but the first has {num_images}: "
                "a task's examples all have the same number of images"
            )
    return np.empty((len(jpegs), num_images, size, size, 3), np.uint8)


def _decoded(
    jpegs: Sequence[Sequence[bytes]], names: Sequence[str]
) -> Iterator[tuple[tuple[int, int], Pixels]]:
    """Yield example and image, as indexes, with the pixels (height, width, 3)."""
    for i, (images, name) in enumerate(zip(jpegs, names, strict=True)):
        for j, jpeg in enumerate(images):
            yield (i, j), decode_stored(jpeg, name)


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize as the released code does, with Pillow's bicubic filter.

    OpenCV is up to ten times as fast, but its values differ by two or three levels on the average,
    because its bicubic filter neither has the same coefficients nor widens where it scales down.
    Released networks are then evaluated on pixels that they were not trained on.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _middle(pixels: Pixels, size: int) -> Pixels:
    """Resize the short side to ``size`` and cut out the middle, rounding as torchvision does."""
    pixels = _without_far_ends(pixels)
    height, width = pixels.shape[:2]
    short = min(height, width)
    width, height = int(size * width / short), int(size * height / short)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return _resized(pixels, width, height)[top : top + size, left : left + size]


def _without_far_ends(pixels: Pixels) -> Pixels:
    """Cut off what is far from the middle: a line of a thousand pixels would be gigabytes."""
    height, width = pixels.shape[:2]
    most = _MOST_ASPECT * min(height, width)
    # As much at either end, so that the middle stays where it is.
    top, left = (max(side - most, 0) // 2 for side in (height, width))
    return pixels[top : height - top, left : width - left]
