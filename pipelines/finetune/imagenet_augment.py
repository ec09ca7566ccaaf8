"""RandAugment of timm's ImageNet training, with the numbers that a caller gives.

timm draws from the random state of the process, so its result would depend on what other threads
draw. Here a caller gives the numbers; the operations on pixels are timm's own. Two operations are
chosen with replacement from timm's increasing set, and each is applied half of the time, with a
magnitude that varies around ``_MAGNITUDE``: ``rand-m9-mstd0.5-inc1`` in timm's notation.
"""

from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data import auto_augment
from timm.data.constants import IMAGENET_DEFAULT_MEAN

from dataprep.images import Pixels

_NUM_OPERATIONS: Final = 2
_PER_OPERATION: Final = 4
"Random numbers of an operation: which one, whether it is applied, its magnitude, its sign."
NUM_UNIFORMS: Final = _NUM_OPERATIONS * _PER_OPERATION
"Random numbers that a crop takes."

OPERATIONS: Final[tuple[str, ...]] = tuple(auto_augment.rand_augment_choices("", increasing=True))
_PROBABILITY: Final = 0.5
_MAX_MAGNITUDE: Final = 10.0
_MAGNITUDE: Final = NormalDist(9.0, 0.5)
_LEAST: Final = 2.0**-54
"Stands for the uniform number 0, at which the normal distribution has no quantile."

_LARGEST: Final = {
    "Rotate": 30.0,
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateXRel": 0.45,
    "TranslateYRel": 0.45,
}
"Argument of the highest magnitude, in degrees or as a fraction; its sign is drawn."
_LARGEST_CHANGE: Final = 0.9
"Largest distance of a factor from 1."
_LEAST_FACTOR: Final = 0.1
_FACTORS: Final = ("Color", "Contrast", "Brightness", "Sharpness")
_FURTHER: Final[dict[str, Any]] = {
    "fillcolor": tuple(round(255 * value) for value in IMAGENET_DEFAULT_MEAN),
    "resample": Image.Resampling.BICUBIC,
}
"Further arguments of timm's functions: the color outside of the image, and the interpolation."


def imagenet_rand_augment(pixels: Pixels, uniforms: NDArray[np.float64]) -> Pixels:
    """Apply the chosen operations to RGB ``pixels`` (height, width, 3), which are not changed.

    Args:
        pixels: the crop.
        uniforms: ``NUM_UNIFORMS`` random numbers in [0, 1).
    """
    image: Image.Image | None = None
    for choice, chance, level, sign in np.reshape(uniforms, (-1, _PER_OPERATION)).tolist():
        if chance < _PROBABILITY:
            name = OPERATIONS[int(choice * len(OPERATIONS))]
            magnitude = min(_MAGNITUDE.inv_cdf(max(level, _LEAST)), _MAX_MAGNITUDE)
            image = Image.fromarray(pixels) if image is None else image
            image = augmented(image, name, max(magnitude, 0.0), 1 if sign < 0.5 else -1)
    return pixels if image is None else np.asarray(image)


def augmented(image: Image.Image, name: str, magnitude: float, sign: int) -> Image.Image:
    """Return an image after one of timm's operations.

    Args:
        image: RGB.
        name: of the operation, one of ``OPERATIONS``.
        magnitude: from 0 to 10.
        sign: 1 or -1, direction of operations that have two.
    """
    level = magnitude / _MAX_MAGNITUDE
    arguments: tuple[float, ...]
    if name in _LARGEST:
        arguments = (sign * level * _LARGEST[name],)
    elif name.removesuffix("Increasing") in _FACTORS:
        arguments = (max(_LEAST_FACTOR, 1 + sign * level * _LARGEST_CHANGE),)
    else:  # the other levels of timm draw nothing
        of_level = auto_augment.LEVEL_TO_ARG[name]
        arguments = of_level(magnitude, {}) if of_level else ()
        if name == "PosterizeIncreasing" and arguments == (0,):
            # Pillow 13 refuses to keep no bits, of which earlier ones made black.
            return Image.new(image.mode, image.size)
    found: Image.Image = auto_augment.NAME_TO_OP[name](image, *arguments, **_FURTHER)
    return found
