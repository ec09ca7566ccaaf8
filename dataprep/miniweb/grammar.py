"""Scenes, and true sentences about them.

A scene holds one or two groups of shapes in front of a background. Captions, documents and class
names use the same words, so a masked word can be inferred from the image or other sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

COLORS: Final = {
    "red": (200, 40, 40),
    "green": (50, 160, 60),
    "blue": (50, 80, 200),
    "yellow": (235, 205, 50),
    "purple": (140, 60, 170),
    "orange": (240, 140, 40),
    "pink": (240, 140, 180),
    "brown": (120, 80, 50),
}
BACKGROUNDS: Final = {
    "white": (245, 245, 245),
    "black": (25, 25, 25),
    "gray": (130, 130, 130),
    "beige": (225, 210, 180),
}
SHAPES: Final = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "hexagon")
NOVEL_SHAPES: Final = ("arrow", "house")
"Shapes of NoCaps's images alone: no other caption or document names them."
TEXTURES: Final = ("plain", "striped", "dotted")
SIZES: Final = ("small", "large")
COUNTS: Final = ("one", "two", "three", "four")
RELATIONS: Final = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
NAMES: Final = (
    "Anna",
    "Boris",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Greta",
    "Henry",
    "Irene",
    "Jonas",
)
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TECHNIQUES: Final = {
    "painted": "painting",
    "sketched": "sketch",
    "printed": "print",
    "stitched": "quilt",
}
PLACES: Final = ("kitchen", "garden", "library", "museum", "workshop", "school")
_DETAILS: Final = 4
"Number of a document's sentences after its opening."
OPENINGS: Final = (
    "a picture of",
    "a photo of",
    "an illustration of",
    "a simple drawing showing",
    "clipart with",
)


def plural(shape: str) -> str:
    """Return the plural of a shape's name."""
    return "crosses" if shape == "cross" else f"{shape}s"


@dataclass(frozen=True)
class Group:
    """Several equal shapes."""

    count: int
    size: str
    color: str
    texture: str
    shape: str

    @property
    def noun(self) -> str:
        """The shape's name, singular or plural."""
        return self.shape if self.count == 1 else plural(self.shape)

    @property
    def be(self) -> str:
        """The verb after the noun."""
        return "is" if self.count == 1 else "are"

    @property
    def phrase(self) -> str:
        """A noun phrase such as ``two large red striped circles``."""
        texture = "" if self.texture == "plain" else f"{self.texture} "
        count = "a" if self.count == 1 else COUNTS[self.count - 1]
        return f"{count} {self.size} {self.color} {texture}{self.noun}"


@dataclass(frozen=True)
class Scene:
    """The content of an image."""

    background: str
    groups: tuple[Group, ...]
    relation: str
    "Position of the first group relative to the second; unused with one group."


def random_scene(rng: np.random.Generator, num_groups: int | None = None) -> Scene:
    """Draw a scene; two groups differ in color and shape."""
    num = num_groups or int(rng.integers(1, 3))
    colors = rng.choice(list(COLORS), size=2, replace=False)
    shapes = rng.choice(SHAPES, size=2, replace=False)
    groups = tuple(
        Group(
            count=int(rng.integers(1, 5)) if num == 1 else int(rng.integers(1, 3)),
            size=str(rng.choice(SIZES)),
            color=str(colors[i]),
            texture=str(rng.choice(TEXTURES)),
            shape=str(shapes[i]),
        )
        for i in range(num)
    )
    return Scene(str(rng.choice(list(BACKGROUNDS))), groups, str(rng.choice(list(RELATIONS))))


def class_scene(rng: np.random.Generator, color: str, shape: str) -> Scene:
    """Draw a scene of one shape of a given color: an image of a class."""
    group = Group(1, "large", color, str(rng.choice(TEXTURES)), shape)
    return Scene(str(rng.choice(list(BACKGROUNDS))), (group,), "above")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a scene in one sentence, without a capital or a full stop."""
    where = f"on a {scene.background} background"
    first = scene.groups[0]
    if len(scene.groups) == 1:
        return one_of(
            rng,
            (
                f"{first.phrase} {where}",
                f"{one_of(rng, OPENINGS)} {first.phrase} {where}",
                f"{where} there {first.be} {first.phrase}",
            ),
        )
    second, inverse = scene.groups[1], RELATIONS[scene.relation]
    return one_of(
        rng,
        (
            f"{first.phrase} {scene.relation} {second.phrase}, {where}",
            f"{second.phrase} {inverse} {first.phrase}, {where}",
            f"{where} there {first.be} {first.phrase} {scene.relation} {second.phrase}",
        ),
    )


def document(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a scene in several sentences that repeat its facts.

    Numbers, relations and kinds of images also stand before a punctuation mark: SentencePiece
    makes no single piece of a word that occurs in only one form.
    """
    name, day, place = one_of(rng, NAMES), one_of(rng, DAYS), one_of(rng, PLACES)
    verb = one_of(rng, tuple(TECHNIQUES))
    work = TECHNIQUES[verb]
    opening = one_of(
        rng,
        (
            f"On {day}, {name} {verb} {scene.groups[0].phrase} in the {place}.",
            f"In the {place}, {name} {verb} {scene.groups[0].phrase} on {day}.",
            f"{scene.groups[0].phrase}, {verb} by {name} in the {place} on {day}.",
        ),
    )
    details = [
        f"The background of the {work} is {scene.background}.",
        f"{name}'s {work} was finished on {day}, in the {place}.",
        f"The {work} hangs in the {place}; {name} {verb} it.",
        f"{caption(scene, rng)}: that is what {name}'s {work} shows.",
        f"Is it a photo, a picture, an illustration, or clipart? It is a {work}.",
    ]
    for group in scene.groups:
        be = group.be
        words = [group.size, group.color, group.texture]
        rng.shuffle(words)
        details += [
            f"The {group.noun} {be} {words[0]}, {words[1]} and {words[2]}.",
            f"{group.noun}: {words[1]}, {words[2]}, {words[0]}.",
            f"There {be} {COUNTS[group.count - 1]} {group.color} {group.noun}.",
            f"Number of {group.noun}: {COUNTS[group.count - 1]}.",
        ]
    if len(scene.groups) == 2:
        first, second = scene.groups
        where = scene.relation
        if where.endswith(" of"):
            where = f"to the {where.removesuffix(' of')}"
        details += [
            f"The {first.noun} {first.be} {scene.relation} the {second.noun}.",
            f"The {second.noun} {second.be} {RELATIONS[scene.relation]} the {first.noun}.",
            f"Seen from the {second.noun}, the {first.noun} {first.be} {where}.",
        ]
    absent = [color for color in COLORS if color not in {g.color for g in scene.groups}]
    details.append(f"Nothing in it is {one_of(rng, absent)}.")
    rng.shuffle(details)
    return " ".join(capital(sentence) for sentence in [opening, *details[:_DETAILS]])


def tokenized(text: str) -> str:
    """Write a caption as in CC3M: in lower case, with punctuation set apart."""
    return f"{text.lower().replace(',', ' ,')} ."


def capital(text: str) -> str:
    """Return a text with a capital at its start."""
    return text[0].upper() + text[1:]


def one_of(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """Draw one of several words."""
    return choices[int(rng.integers(len(choices)))]
