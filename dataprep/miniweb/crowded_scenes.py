"""Scenes of many single shapes, with the visible pixels of each: the truth of detection.

Shapes lie anywhere: some are tiny, some are cut by the border, some cover others. A shape that is
drawn stays visible for the most part. Every few images there is a swarm of tiny equal shapes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataprep.miniweb.drawing import Pixels, Placement, background, draw_shape
from dataprep.miniweb.grammar import BACKGROUNDS, COLORS, SHAPES, TEXTURES, Group

_MOST_SHAPES: Final = 6
_EMPTY_PERIOD: Final = 16
"Of so many images one has no shape."
_SWARM_PERIOD: Final = 9
"Of so many images one has a swarm."
_SWARM: Final = (5, 9)
_RADII: Final = (0.07, 0.3)
"Of a shape, as fractions of the shorter side; small ones are more frequent."
_LEAST_VISIBLE: Final = 0.5
"Fraction of the whole shape."
_FEWEST_PIXELS: Final = 16


@dataclass(frozen=True)
class DrawnObject:
    """A shape, or a swarm of equal shapes."""

    shape: str
    mask: NDArray[np.bool_]
    "(height, width), its visible pixels."
    is_swarm: bool = False


@dataclass(frozen=True)
class CrowdedScene:
    """An image and what is in it."""

    pixels: Pixels
    objects: tuple[DrawnObject, ...]


def crowded_scene(number: int, width: int, height: int, rng: np.random.Generator) -> CrowdedScene:
    """Draw the scene of an image; its number decides whether it is empty or has a swarm."""
    name = str(rng.choice(list(BACKGROUNDS)))
    light = rng.uniform(0.88, 1.0, 2)
    canvas = _Canvas(background(name, width, height, (light[0], light[1])))
    if number % _EMPTY_PERIOD == 0:
        return canvas.scene()
    colors = rng.permutation(list(COLORS))
    if number % _SWARM_PERIOD == 1:
        canvas.draw_swarm(str(colors[-1]), rng)
    for color in colors[: int(rng.integers(1, _MOST_SHAPES + 1))]:
        texture = str(rng.choice(TEXTURES))
        canvas.draw(Group(1, "large", str(color), texture, str(rng.choice(SHAPES))), rng)
    return canvas.scene()


class _Canvas:
    """An image that shapes are drawn on, one over the other."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self._sizes: list[float] = []
        self._objects: list[DrawnObject] = []

    def scene(self) -> CrowdedScene:
        """Return what was drawn."""
        return CrowdedScene(self._pixels, tuple(self._objects))

    def draw(self, group: Group, rng: np.random.Generator) -> None:
        """Draw a shape at a random place, unless too little of it or of another one were seen."""
        height, width = self._pixels.shape[:2]
        low, high = np.log(_RADII)
        radius = float(np.exp(rng.uniform(low, high))) * min(width, height)
        place = (float(rng.uniform(0, width)), float(rng.uniform(0, height)), radius)
        image = self._pixels.copy()
        mask = self._drawn(image, group, [place])
        whole = np.zeros((int(2 * radius) + 3,) * 2 + (3,), np.uint8)
        size = float(draw_shape(whole, group, (radius + 1, radius + 1, radius))[1].sum())
        left = [thing.mask & ~mask for thing in self._objects]
        visible = [mask.sum(), *(each.sum() for each in left)]
        sizes = [size, *self._sizes]
        if any(
            v < max(_FEWEST_PIXELS, _LEAST_VISIBLE * s) for v, s in zip(visible, sizes, strict=True)
        ):
            return
        self._pixels[:] = image
        self._objects = [
            DrawnObject(thing.shape, seen, thing.is_swarm)
            for thing, seen in zip(self._objects, left, strict=True)
        ]
        self._objects.append(DrawnObject(group.shape, mask))
        self._sizes.append(size)

    def draw_swarm(self, color: str, rng: np.random.Generator) -> None:
        """Draw tiny shapes near each other; it is called before :meth:`draw`."""
        height, width = self._pixels.shape[:2]
        group = Group(1, "small", color, "plain", str(rng.choice(SHAPES)))
        side = 0.35 * min(width, height)
        corner = rng.uniform(0, [width - side, height - side])
        places = [
            (*(corner + rng.uniform(0.1, 0.9, 2) * side).tolist(), 0.12 * side)
            for _ in range(int(rng.integers(*_SWARM)))
        ]
        mask = self._drawn(self._pixels, group, places)
        self._objects.append(DrawnObject(group.shape, mask, is_swarm=True))
        self._sizes.append(float(mask.sum()))

    def _drawn(self, image: Pixels, group: Group, places: list[Placement]) -> NDArray[np.bool_]:
        mask = np.zeros(image.shape[:2], bool)
        for place in places:
            window, covered = draw_shape(image, group, place)
            mask[window] |= covered
        return mask
