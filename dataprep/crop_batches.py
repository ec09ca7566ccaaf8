"""Crops of many stored images at once: what to cut, as plain data, and the cutting.

A request names everything that a batch depends on, so it gives the same pixels in any process
(``crop_process.py``). Its images come apart from it, since their bytes are many.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dataprep.color_jitter import apply_operations, drawn_operations
from dataprep.opencv_decoding import decode_stored
from dataprep.views import View, cut, random_view

Pixels = NDArray[np.uint8]
Images = Iterable[tuple[bytes | memoryview, str]]
"JPEG and sample id of each image."


class CropRequest(Protocol):
    """What to cut out of each image of a batch."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the crops of an image in pixels."""

    def cut(self, images: Images, crops: Sequence[Pixels]) -> None:
        """Write the crops of B images into an array (B, size, size, 3) for each of ``sizes``.

        Raises:
            ImageError: a stored image is damaged; the message names its sample.
        """


@dataclass(frozen=True)
class StoredCrops:
    """A stored view of each image; color jitter changes the crop."""

    views: NDArray[np.integer]
    "(B, 5): x, y, width, height and whether the crop is mirrored."
    size: int
    "Side of a crop in pixels."
    color_jitter: float
    "Strength as in ``color_jitter``; 0 leaves the colors."
    uniforms: NDArray[np.float64]
    "(B, ``NUM_UNIFORMS``) random numbers of the jitter."

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the crops of an image in pixels."""
        return (self.size,)

    def cut(self, images: Images, crops: Sequence[Pixels]) -> None:
        """Write the crops of B images into one array (B, size, size, 3).

        Raises:
            ImageError: a stored image is damaged; the message names its sample.
        """
        orders, factors = drawn_operations(self.color_jitter, self.uniforms)
        for i, (jpeg, sample_id) in enumerate(images):
            x, y, width, height, flip = self.views[i].tolist()
            view, crop = View(x, y, width, height, bool(flip)), crops[0][i]
            cut(decode_stored(jpeg, sample_id), view, self.size, crop)
            if self.color_jitter:
                apply_operations(crop, orders[i].tolist(), factors[i].tolist(), crop)


@dataclass(frozen=True)
class NewCrops:
    """A new view of each image, cut at several sizes; color jitter changes the whole image."""

    keys: Sequence[str]
    "What the view of each of B images is drawn from, with the seed."
    seed: int
    "Seed of the views."
    min_scale: float
    "Smallest fraction of an image's area that a view covers."
    flip: bool
    "Whether half of the views are mirrored."
    sizes: tuple[int, ...]
    "Sides of the crops of an image in pixels."
    color_jitter: float
    "Strength as in ``color_jitter``; 0 leaves the colors."
    uniforms: NDArray[np.float64]
    "(B, ``NUM_UNIFORMS``) random numbers of the jitter."

    def cut(self, images: Images, crops: Sequence[Pixels]) -> None:
        """Write the crops of B images into an array (B, size, size, 3) for each of ``sizes``.

        Raises:
            ImageError: a stored image is damaged; the message names its sample.
        """
        orders, factors = drawn_operations(self.color_jitter, self.uniforms)
        for i, (jpeg, sample_id) in enumerate(images):
            pixels = decode_stored(jpeg, sample_id)
            if self.color_jitter:
                pixels = apply_operations(pixels, orders[i].tolist(), factors[i].tolist())
            height, width = pixels.shape[:2]
            drawn = width, height, self.min_scale, self.seed, self.keys[i], 0
            view = random_view(*drawn, flip=self.flip)
            for target, size in zip(crops, self.sizes, strict=True):
                cut(pixels, view, size, target[i])


def crop_shapes(request: CropRequest, number: int) -> list[tuple[int, int, int, int]]:
    """Return the shape of each array of crops of ``number`` images."""
    return [(number, size, size, 3) for size in request.sizes]
