"""Drawing scenes: deterministic pixels for a scene, a size and a random generator."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.miniweb.grammar import BACKGROUNDS, COLORS, Group, Scene

Pixels = NDArray[np.uint8]

_SUBPIXEL_BITS: Final = 4
_AREAS: Final = {
    "left of": ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0)),
    "right of": ((0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 0.5, 1.0)),
    "above": ((0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 0.5)),
    "below": ((0.0, 0.5, 1.0, 0.5), (0.0, 0.0, 1.0, 0.5)),
}
"By relation: x, y, width, height of both groups as fractions of the image."

_RADII: Final = {"small": 0.28, "large": 0.46}
"By size: radius of a shape, as a fraction of its cell."
_JITTER: Final = 0.04
"How far a shape is from the center of its cell at most, as a fraction of the cell."

Placement = tuple[float, float, float]
"Center x, center y and radius of a shape in pixels."


@dataclass(frozen=True)
class Layout:
    """The random part of an image."""

    light: tuple[float, float]
    "Brightness at the top and at the bottom, as a fraction."
    groups: list[list[Placement]]
    "Placements of the shapes of each group."


def lay_out(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Layout:
    """Draw the light and the placements of a scene's shapes."""
    above, below = rng.uniform(0.88, 1.0, 2)
    areas = _AREAS[scene.relation] if len(scene.groups) == 2 else ((0.0, 0.0, 1.0, 1.0),)
    groups = [
        _placements(group, (x * width, y * height, w * width, h * height), rng)
        for group, (x, y, w, h) in zip(scene.groups, areas, strict=True)
    ]
    return Layout((above, below), groups)


def draw(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Return the scene as RGB ``(height, width, 3)`` uint8, lit from above or below."""
    layout = lay_out(scene, width, height, rng)
    image = background(scene.background, width, height, layout.light)
    for group, placements in zip(scene.groups, layout.groups, strict=True):
        for placement in placements:
            draw_shape(image, group, placement)
    return image


def background(name: str, width: int, height: int, light: tuple[float, float]) -> Pixels:
    """Return an empty image ``(height, width, 3)``, lit at the top and at the bottom."""
    image: Pixels = np.empty((height, width, 3), np.uint8)
    lit = np.linspace(*light, height)[:, None, None]
    image[:] = (np.array(BACKGROUNDS[name]) * lit).astype(np.uint8)
    return image


def draw_shape(
    image: Pixels, group: Group, placement: Placement
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Draw one shape; return the window of the image around it and its pixels in the window."""
    center_x, center_y, radius = placement
    left, top = max(int(center_x - radius), 0), max(int(center_y - radius), 0)
    right, bottom = int(center_x + radius) + 1, int(center_y + radius) + 1
    place = (slice(top, bottom), slice(left, right))
    window = image[place]
    mask = np.zeros(window.shape[:2], np.uint8)
    _fill_shape(mask, group.shape, (center_x - left, center_y - top), radius)
    covered = mask > 127
    color = COLORS[group.color]
    if group.texture == "plain":
        window[covered] = color
        return place, covered
    pattern = _pattern(group.texture, (top, left), mask.shape, max(radius / 2.2, 4.0))
    window[covered & pattern] = color
    light = tuple(round(c * 0.35 + 255 * 0.65) for c in color)
    window[covered & ~pattern] = light
    return place, covered


def _placements(
    group: Group, area: tuple[float, float, float, float], rng: np.random.Generator
) -> list[Placement]:
    x, y, width, height = area
    columns = _columns(group.count, width, height)
    rows = -(-group.count // columns)
    cell_width, cell_height = width / columns, height / rows
    cell = min(cell_width, cell_height)
    radius = cell * _RADII[group.size]
    placements = []
    for i in range(group.count):
        jitter = rng.uniform(-1, 1, 2) * cell * _JITTER
        center_x = x + (i % columns + 0.5) * cell_width + jitter[0]
        center_y = y + (i // columns + 0.5) * cell_height + jitter[1]
        placements.append((center_x, center_y, radius))
    return placements


def _columns(count: int, width: float, height: float) -> int:
    """Return the number of columns with the largest cells, of equal ones the smallest."""
    return max(range(1, count + 1), key=lambda n: min(width / n, height / -(-count // n)))


def _pattern(
    texture: str, origin: tuple[int, int], shape: tuple[int, ...], period: float
) -> NDArray[np.bool_]:
    """Return a mask of the full color; the other pixels get a pale one."""
    rows = np.arange(origin[0], origin[0] + shape[0], dtype=np.float32)[:, None]
    columns = np.arange(origin[1], origin[1] + shape[1], dtype=np.float32)[None, :]
    if texture == "striped":
        return (rows + columns) % period < period / 2
    dx, dy = columns % period - period / 2, rows % period - period / 2
    return dx * dx + dy * dy > (period * 0.3) ** 2


def _fill_shape(mask: Pixels, shape: str, center: tuple[float, float], radius: float) -> None:
    scale = 1 << _SUBPIXEL_BITS
    if shape in ("circle", "ring"):
        point = (round(center[0] * scale), round(center[1] * scale))
        cv2.circle(mask, point, round(radius * scale), 255, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        if shape == "ring":
            hole = round(radius * 0.55 * scale)
            cv2.circle(mask, point, hole, 0, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        return
    for outline in _outlines(shape):
        corners = np.array(center) + np.array(outline) * radius
        points = np.round(corners * scale).astype(np.int32)
        cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SUBPIXEL_BITS)


def _outlines(shape: str) -> list[list[tuple[float, float]]]:
    """Return the outlines' corners in units of the radius; y points down."""
    if shape == "square":
        return [[(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]]
    if shape == "cross":
        return [
            [(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)],
            [(-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1)],
        ]
    if shape == "star":
        angles = np.pi * (np.arange(10) / 5 - 0.5)
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return [list(zip(np.cos(angles) * radii, np.sin(angles) * radii, strict=True))]
    if shape == "arrow":
        tip = [(0.2, -0.8), (1, 0), (0.2, 0.8), (0.2, 0.3)]
        return [[(-1, -0.3), (0.2, -0.3), *tip, (-1, 0.3)]]
    if shape == "house":
        return [[(-0.7, 0.8), (-0.7, -0.1), (0, -0.9), (0.7, -0.1), (0.7, 0.8)]]
    corners = {"triangle": 3, "diamond": 4, "hexagon": 6}[shape]
    angles = 2 * np.pi * np.arange(corners) / corners - np.pi / 2
    width = 0.7 if shape == "diamond" else 1.0
    return [list(zip(np.cos(angles) * width, np.sin(angles), strict=True))]
