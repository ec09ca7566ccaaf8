"""Views: a crop box and a flip of a stored image, shared by the image tokenizer and training.

Both cut with :func:`cut`, so the codes belong to exactly the pixels that the model sees. The view
is the paper's random resized crop and flip. BEiT draws it anew in each epoch; here each image has a
fixed number of views, so that their codes can be stored.
"""

import math
from typing import Final, NamedTuple

import cv2
import numpy as np

from dataprep.images import Pixels
from dataprep.randomness import rng_of

_LOG_ASPECT: Final = math.log(4 / 3)
"Largest absolute logarithm of a box's aspect ratio, as in torchvision."
_ATTEMPTS: Final = 10


class View(NamedTuple):
    """A crop box in pixels of the stored image, and whether the crop is mirrored."""

    x: int
    y: int
    width: int
    height: int
    flip: bool


def random_view(
    width: int,
    height: int,
    min_scale: float,
    seed: int,
    sample_id: str,
    index: int,
    *,
    flip: bool = True,
) -> View:
    """Draw view ``index`` of a sample: a pure function of its arguments.

    Args:
        width: width of the stored image in pixels.
        height: height of the stored image in pixels.
        min_scale: smallest fraction of the image's area.
        seed: the recipe's seed.
        sample_id: id of the image.
        index: number of the view.
        flip: whether half of the views are mirrored; the boxes are the same either way.
    """
    rng = rng_of(seed, sample_id, index)
    flip = bool(rng.random() < 0.5) and flip
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(min_scale, 1.0)
        aspect = math.exp(rng.uniform(-_LOG_ASPECT, _LOG_ASPECT))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            x = int(rng.integers(0, width - box_width + 1))
            y = int(rng.integers(0, height - box_height + 1))
            return View(x, y, box_width, box_height, flip)
    # As in torchvision: the largest centered box whose aspect ratio is allowed.
    box_height = min(height, round(width * math.exp(_LOG_ASPECT)))
    box_width = min(width, round(height * math.exp(_LOG_ASPECT)))
    return View((width - box_width) // 2, (height - box_height) // 2, box_width, box_height, flip)


def random_cut(
    pixels: Pixels,
    min_scale: float,
    seed: int,
    sample_id: str,
    index: int,
    size: int,
    *,
    flip: bool = True,
) -> tuple[View, Pixels]:
    """Draw a view of an image (see :func:`random_view`) and return it with its pixels."""
    height, width = pixels.shape[:2]
    view = random_view(width, height, min_scale, seed, sample_id, index, flip=flip)
    return view, cut(pixels, view, size)


def cut(pixels: Pixels, view: View, size: int, out: Pixels | None = None) -> Pixels:
    """Return a view as (size, size, 3): area interpolation down, bicubic interpolation up.

    ``out`` receives the result; None makes a new array.
    """
    box = pixels[view.y : view.y + view.height, view.x : view.x + view.width]
    shrinks = min(view.width, view.height) > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    square = cv2.resize(box, (size, size), out, interpolation=method)
    # NumPy's reversed copy takes three times as long as the resize.
    return np.asarray(cv2.flip(square, 1, square) if view.flip else square, np.uint8)
