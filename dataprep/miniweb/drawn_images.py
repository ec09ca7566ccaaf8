"""Images of scenes as files: what is drawn, how large, and by whom.

Threads draw: numpy, OpenCV and Pillow let each other run, and a process forked from one that has
used OpenCV hangs at its first call.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dataprep.miniweb.drawing import draw
from dataprep.miniweb.grammar import Scene
from dataprep.miniweb.image_formats import KINDS

SHORTEST_SIDE: Final = 200
_DRAWING: Final = 77


@dataclass(frozen=True)
class DrawnImage:
    """An image to draw; equal ones have equal bytes."""

    scene: Scene
    width: int
    height: int
    seed: tuple[int, ...]
    kind: str = "jpeg"
    "One of ``kinds.KINDS``."

    @property
    def rng(self) -> np.random.Generator:
        """Draws light and places."""
        return numbered_rng(*self.seed, _DRAWING)


class Studio:
    """Draws images in the threads of a pool, in their order."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool

    def draw(self, images: Iterable[DrawnImage]) -> Iterator[bytes]:
        """Yield the bytes of each image."""
        return self.pool.map(encoded, images)

    def draw_files(self, images: Iterable[tuple[Path, DrawnImage]]) -> None:
        """Write each image to its path."""
        for _ in self.pool.map(_write, images):
            pass


def encoded(image: DrawnImage) -> bytes:
    """Return the bytes of an image."""
    pixels = draw(image.scene, image.width, image.height, image.rng)
    return KINDS[image.kind](pixels)


def _write(task: tuple[Path, DrawnImage]) -> None:
    path, image = task
    path.write_bytes(encoded(image))


def image_size(rng: np.random.Generator, longest: int) -> tuple[int, int]:
    """Draw a width and a height of at most 1 : 1.4."""
    width = int(rng.integers(SHORTEST_SIDE, longest))
    height = int(np.clip(width * rng.uniform(1 / 1.4, 1.4), SHORTEST_SIDE, longest))
    return width, height


def numbered_rng(*key: int) -> np.random.Generator:
    """Return the generator of a key; the first number is the web's seed, the second the source."""
    return np.random.default_rng(key)
