"""Words drawn into an image: names of classes, in any script that matplotlib's font has."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataprep.images import Pixels

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Words:
    """Words at a place of an image."""

    text: str
    place: tuple[int, int]
    "x and y in pixels."
    color: Color
    border: Color | None = None
    "Color around the letters, if any."
    centered: bool = False
    "Whether the place is the middle of the words; else it is the left end of their base line."


def with_words(image: Pixels, some: Sequence[Words], size: int) -> Pixels:
    """Return an image (height, width, 3) with words in it; those of the left border stay inside.

    Args:
        image: the image.
        some: the words, later ones over earlier ones.
        size: of the letters in pixels.
    """
    drawn = Image.fromarray(image)
    draw, font = ImageDraw.Draw(drawn), _font(size)
    for words in some:
        text, (x, y) = " ".join(words.text.split()), words.place
        left = x - font.getlength(text) / 2 if words.centered else x
        draw.text(
            (max(left, 0), y),
            text,
            words.color,
            font,
            anchor="lm" if words.centered else "ls",
            stroke_width=int(words.border is not None),
            stroke_fill=words.border,
        )
    return np.asarray(drawn).copy()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans: Latin, Greek, Cyrillic and others, without those of East Asia."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
