"""Pictures of scenes as files: what is drawn, how large, and by whom.

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
from dataprep.miniweb.kinds import KINDS

SHORTEST_SIDE: Final = 200
_DRAWING: Final = 77


@dataclass(frozen=True)
class Picture:
    """A picture to draw; equal ones have equal bytes."""

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
    """Draws pictures in the threads of a pool, in their order."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool

    def draw(self, pictures: Iterable[Picture]) -> Iterator[bytes]:
        """Yield the bytes of each picture."""
        return self.pool.map(encoded, pictures)

    def draw_files(self, pictures: Iterable[tuple[Path, Picture]]) -> None:
        """Write each picture to its path."""
        for _ in self.pool.map(_write, pictures):
            pass


def encoded(picture: Picture) -> bytes:
    """Return the bytes of a picture."""
    pixels = draw(picture.scene, picture.width, picture.height, picture.rng)
    return KINDS[picture.kind](pixels)


def _write(task: tuple[Path, Picture]) -> None:
    path, picture = task
    path.write_bytes(encoded(picture))


def picture_size(rng: np.random.Generator, longest: int) -> tuple[int, int]:
    """Draw a width and a height of at most 1 : 1.4."""
    width = int(rng.integers(SHORTEST_SIDE, longest))
    height = int(np.clip(width * rng.uniform(1 / 1.4, 1.4), SHORTEST_SIDE, longest))
    return width, height


def numbered_rng(*key: int) -> np.random.Generator:
    """Return the generator of a key; the first number is the web's seed, the second the source."""
    return np.random.default_rng(key)
