"""Images of scenes as files: their parameters, and a renderer that draws them in threads.

Threads suffice, because numpy, OpenCV and Pillow release the GIL. Processes do not work: one that
is forked after a use of OpenCV hangs at its first OpenCV call.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dataprep.miniweb.drawing import draw
from dataprep.miniweb.grammar import Scene
from dataprep.miniweb.image_formats import FORMATS

SHORTEST_SIDE: Final = 200
_DRAWING: Final = 77


@dataclass(frozen=True)
class DrawnImage:
    """The parameters of an image; equal parameters give equal bytes."""

    scene: Scene
    width: int
    height: int
    seed: tuple[int, ...]
    format: str = "jpeg"
    "A key of ``image_formats.FORMATS``."

    @property
    def rng(self) -> np.random.Generator:
        """Generator of the light and the placements."""
        return numbered_rng(*self.seed, _DRAWING)


class ImageRenderer:
    """Draws images in the threads of a pool."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool

    def render(self, images: Iterable[DrawnImage]) -> Iterator[bytes]:
        """Yield the bytes of each image, in order."""
        return self.pool.map(encoded, images)

    def render_files(self, images: Iterable[tuple[Path, DrawnImage]]) -> None:
        """Write each image to its path."""
        for _ in self.pool.map(_write, images):
            pass


def encoded(image: DrawnImage) -> bytes:
    """Return the bytes of an image."""
    pixels = draw(image.scene, image.width, image.height, image.rng)
    return FORMATS[image.format](pixels)


def _write(task: tuple[Path, DrawnImage]) -> None:
    path, image = task
    path.write_bytes(encoded(image))


def image_size(rng: np.random.Generator, longest: int) -> tuple[int, int]:
    """Draw a width and a height whose aspect ratio is at most 1.4."""
    width = int(rng.integers(SHORTEST_SIDE, longest))
    height = int(np.clip(width * rng.uniform(1 / 1.4, 1.4), SHORTEST_SIDE, longest))
    return width, height


def numbered_rng(*key: int) -> np.random.Generator:
    """Return the generator of a key: the web's seed, the number of the source, further numbers."""
    return np.random.default_rng(key)
