"""Statements about two images, each true or false, as in NLVR2.

``left`` and ``right`` are the first and the second image of a pair. ``a star`` means one star or
more. No statement can be judged from its words; most need both images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from dataprep.miniweb.grammar import BACKGROUNDS, COLORS, SHAPES, Scene, one_of, random_scene

Pair = tuple[Scene, Scene]
_SIDES: Final = (("left", "right"), ("right", "left"))


@dataclass(frozen=True)
class Statement:
    """A statement about two images."""

    wordings: tuple[str, str]
    "Two sentences that mean the same."
    holds: Callable[[Scene, Scene], bool]
    "Whether the statement is true of (left, right)."
    hints: tuple[Mapping[str, str], Mapping[str, str]] = field(default=({}, {}))
    "Attributes that a scene of each side often gets, so that true pairs are not rare."


def draw_statement(rng: np.random.Generator) -> Statement:
    """Draw a statement."""
    return _STATEMENTS[int(rng.integers(len(_STATEMENTS)))](rng)


def draw_pair(statement: Statement, is_true: bool, rng: np.random.Generator) -> Pair:
    """Draw two scenes of which a statement is true, or false."""
    while True:
        left, right = (_hinted(random_scene(rng), hint, rng) for hint in statement.hints)
        if statement.holds(left, right) == is_true:
            return left, right


def _hinted(scene: Scene, hint: Mapping[str, str], rng: np.random.Generator) -> Scene:
    if not hint or rng.random() < 0.5:
        return scene
    if "background" in hint:
        return replace(scene, background=hint["background"])
    first, *others = scene.groups
    if any(getattr(group, name) == value for group in others for name, value in hint.items()):
        return scene
    changed: dict[str, Any] = dict(hint)
    return replace(scene, groups=(replace(first, **changed), *others))


def _shows(scene: Scene, name: str, value: str) -> bool:
    return any(getattr(group, name) == value for group in scene.groups)


def _num_shapes(scene: Scene) -> int:
    return sum(group.count for group in scene.groups)


def _exactly_one(rng: np.random.Generator) -> Statement:
    shape = one_of(rng, SHAPES)
    return Statement(
        (f"Exactly one of the pictures shows a {shape}.", f"Only one picture shows a {shape}."),
        lambda left, right: _shows(left, "shape", shape) != _shows(right, "shape", shape),
        ({"shape": shape},) * 2,
    )


def _both(rng: np.random.Generator) -> Statement:
    shape = one_of(rng, SHAPES)
    return Statement(
        (f"Both pictures show a {shape}.", f"There is a {shape} in both pictures."),
        lambda left, right: _shows(left, "shape", shape) and _shows(right, "shape", shape),
        ({"shape": shape},) * 2,
    )


def _same_color(rng: np.random.Generator) -> Statement:
    color = one_of(rng, tuple(COLORS))
    return Statement(
        (f"There is {color} in both pictures.", f"Both pictures show {color} shapes."),
        lambda left, right: _shows(left, "color", color) and _shows(right, "color", color),
        ({"color": color},) * 2,
    )


def _more(rng: np.random.Generator) -> Statement:
    one, other = _SIDES[int(rng.integers(2))]
    sign = 1 if one == "left" else -1
    return Statement(
        (
            f"The {one} picture shows more shapes than the {other} one.",
            f"There are more shapes in the {one} picture.",
        ),
        lambda left, right: sign * (_num_shapes(left) - _num_shapes(right)) > 0,
    )


def _same_background(rng: np.random.Generator) -> Statement:
    background = one_of(rng, tuple(BACKGROUNDS))
    return Statement(
        ("The background is the same in both pictures.", "Both pictures show the same background."),
        lambda left, right: left.background == right.background,
        ({"background": background},) * 2,
    )


def _background_of_one(rng: np.random.Generator) -> Statement:
    background = one_of(rng, tuple(BACKGROUNDS))
    side, _ = _SIDES[int(rng.integers(2))]
    return Statement(
        (
            f"Only the {side} picture shows a {background} background.",
            f"The background is {background} in the {side} picture only.",
        ),
        lambda left, right: (
            left.background == background,
            right.background == background,
        ) == (side == "left", side == "right"),
        ({"background": background},) * 2,
    )  # fmt: skip


def _one_each(rng: np.random.Generator) -> Statement:
    first, second = (str(shape) for shape in rng.choice(SHAPES, 2, replace=False))
    return Statement(
        (
            f"The left picture shows a {first}, the right one a {second}.",
            f"There is a {first} in the left picture and a {second} in the right one.",
        ),
        lambda left, right: _shows(left, "shape", first) and _shows(right, "shape", second),
        ({"shape": first}, {"shape": second}),
    )


_STATEMENTS: Final[Sequence[Callable[[np.random.Generator], Statement]]] = (
    _exactly_one, _both, _same_color, _more, _same_background, _background_of_one, _one_each,
)  # fmt: skip
