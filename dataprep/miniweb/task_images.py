"""Images of downstream tasks, and what the writers of all tasks have in common.

Images are small, so that thousands are drawn in seconds. Every writer divides its examples with
:func:`split_of` and plants its faults with :func:`fault_of`, in the training and development
splits only; each docstring lists the faults of its task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from dataprep.miniweb.drawing import draw
from dataprep.miniweb.drawn_images import DrawnImage, ImageRenderer, encoded
from dataprep.miniweb.grammar import Scene
from dataprep.miniweb.image_formats import png

Split = Literal["train", "dev", "test"]

_SIDES: Final = (96, 129)
"Shortest side in pixels, and one more than the longest."
_DEV: Final = (3, 10, 17)
_TEST: Final = (6, 13, 19)
_SPLIT_CYCLE: Final = 20
_FAULT_PERIOD: Final = 29
_FAULTY_PLACE: Final = 5


@dataclass(frozen=True)
class TaskImage:
    """An image of a task; the extension of its path decides between JPEG and PNG."""

    path: Path
    image: DrawnImage
    outcome: str = "ok"
    "``missing_file`` is not written, ``undecodable`` is truncated; all others are whole."


def image_sides(rng: np.random.Generator) -> tuple[int, int]:
    """Draw width and height of a small image."""
    width, height = rng.integers(*_SIDES, 2)
    return int(width), int(height)


def small_image(scene: Scene, rng: np.random.Generator, seed: tuple[int, ...]) -> DrawnImage:
    """Return an image of a scene at a random small size."""
    width, height = image_sides(rng)
    return DrawnImage(scene, width, height, seed)


def split_of(number: int) -> Split:
    """Return the split of an example: of twenty, three are for development, three for testing."""
    place = number % _SPLIT_CYCLE
    return "dev" if place in _DEV else "test" if place in _TEST else "train"


def fault_of(number: int, split: Split, faults: Sequence[str]) -> str:
    """Return the outcome of an example: one of ``faults`` in turn at regular intervals."""
    turn, place = divmod(number, _FAULT_PERIOD)
    is_bad = place == _FAULTY_PLACE and split != "test"
    return faults[turn % len(faults)] if is_bad else "ok"


def write_images(renderer: ImageRenderer, images: Iterable[TaskImage]) -> None:
    """Write each image to its path, in folders that are made."""
    found = [image for image in images if image.outcome != "missing_file"]
    for parent in {image.path.parent for image in found}:
        parent.mkdir(parents=True, exist_ok=True)
    for _ in renderer.pool.map(_write, found):
        pass


def _write(task: TaskImage) -> None:
    image = task.image
    if task.path.suffix == ".png":
        data = png(draw(image.scene, image.width, image.height, image.rng))
    else:
        data = encoded(image)
    task.path.write_bytes(data[: len(data) // 3] if task.outcome == "undecodable" else data)
