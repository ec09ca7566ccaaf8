"""Questions about a scene with their answers, and annotators who disagree, as in VQAv2.

Questions are about color, shape, count, position, texture and background, or are answered by yes
or no; an answer is a word or a digit. Sizes are not asked for, because a large shape of a scene
with many shapes may be smaller than a small one of another scene.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dataprep.miniweb.grammar import (
    BACKGROUNDS,
    COLORS,
    COUNTS,
    RELATIONS,
    SHAPES,
    TEXTURES,
    Group,
    Scene,
    one_of,
    plural,
)

NUM_ANNOTATORS: Final = 10
_AGREEMENT: Final = 0.4
"Fraction of questions to which all annotators give the same answer."
_FEWEST_EXACT: Final = 4
"Annotators who give exactly the true answer; fewer would no longer earn it the full score."
_PLACES: Final = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}
_SYNONYMS: Final = {
    "beige": "tan",
    "bottom": "below",
    "brown": "dark brown",
    "circle": "disk",
    "cross": "plus sign",
    "diamond": "rhombus",
    "dotted": "polka dot",
    "gray": "grey",
    "no": "nope",
    "pink": "light red",
    "plain": "solid",
    "purple": "violet",
    "ring": "donut",
    "square": "box",
    "striped": "stripes",
    "top": "above",
    "yes": "yep",
}
_POOLS: Final = (
    ("yes", "no"),
    tuple(str(number) for number in range(5)),
    tuple(_PLACES.values()),
    TEXTURES,
    SHAPES,
    tuple(COLORS),
    tuple(BACKGROUNDS),
)
"Answers of the same kind, from which wrong ones are taken."


@dataclass(frozen=True)
class Question:
    """A question about an image."""

    text: str
    type: str
    "First words, as VQAv2's ``question_type``."
    answer: str

    @property
    def answer_type(self) -> str:
        """VQAv2's kind of answer."""
        if self.answer in ("yes", "no"):
            return "yes/no"
        return "number" if self.answer.isdigit() else "other"


def draw_questions(scene: Scene, number: int, rng: np.random.Generator) -> list[Question]:
    """Draw at most ``number`` different questions about a scene."""
    found = [*_open_questions(scene, rng), *_yes_no_questions(scene, rng)]
    return [found[i] for i in rng.permutation(len(found))[:number]]


def _open_questions(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    group = scene.groups[int(rng.integers(len(scene.groups)))]
    be, noun = group.be, group.noun
    yield Question(f"What color {be} the {noun}?", f"what color {be} the", group.color)
    yield Question(f"What shape is {group.color}?", "what", group.shape)
    yield Question("What color is the background?", "what color is the", scene.background)
    counts = {group.shape: group.count for group in scene.groups}
    counted = group.shape if rng.random() < 5 / 6 else one_of(rng, SHAPES)
    number = str(counts.get(counted, 0))
    yield Question(f"How many {plural(counted)} are there?", "how many", number)
    texture = f"{be.capitalize()} the {noun} plain, striped or dotted?"
    yield Question(texture, f"{be} the", group.texture)
    if len(scene.groups) == 2:
        relation = scene.relation if group is scene.groups[0] else RELATIONS[scene.relation]
        yield Question(f"Where {be} the {noun}?", f"where {be} the", _PLACES[relation])


def _yes_no_questions(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """Yield questions whose answer is drawn first, so that both answers are equally frequent."""
    group = scene.groups[int(rng.integers(len(scene.groups)))]
    true = [bool(rng.integers(2)) for _ in range(4)]
    background = _kept(true[0], scene.background, tuple(BACKGROUNDS), rng)
    yield _yes_no(f"Is the background {background}?", "is the", true[0])
    color = _kept(true[1], group.color, tuple(COLORS), rng)
    article = "an" if color == "orange" else "a"
    yield _yes_no(f"Is there {article} {color} {group.shape}?", "is there", true[1])
    count = COUNTS.index(_kept(true[2], COUNTS[group.count - 1], COUNTS, rng)) + 1
    asked = Group(count, group.size, group.color, group.texture, group.shape)
    start = f"{asked.be.capitalize()} there"
    yield _yes_no(f"{start} {COUNTS[count - 1]} {asked.noun}?", start.lower(), true[2])
    if len(scene.groups) == 2:
        first, second = scene.groups
        relation = _kept(true[3], scene.relation, tuple(RELATIONS), rng)
        text = f"{first.be.capitalize()} the {first.noun} {relation} the {second.noun}?"
        yield _yes_no(text, f"{first.be} the", true[3])


def _yes_no(text: str, type_: str, is_true: bool) -> Question:
    return Question(text, type_, "yes" if is_true else "no")


def _kept(keep: bool, word: str, words: tuple[str, ...], rng: np.random.Generator) -> str:
    """Return ``word``, or another of ``words``."""
    return word if keep else one_of(rng, [other for other in words if other != word])


def annotators_answers(answer: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return ten annotators' answers in VQAv2's form; the true one is the most frequent.

    The others write it otherwise (case, article, full stop, number word), use a synonym, or are
    wrong. Normalized as the official metric does it, the true answer has a majority.
    """
    agree = rng.random() < _AGREEMENT
    num_exact = NUM_ANNOTATORS if agree else int(rng.integers(_FEWEST_EXACT, NUM_ANNOTATORS))
    others = _other_answers(answer, rng)[: NUM_ANNOTATORS - num_exact]
    answers = [answer] * num_exact + others
    return [
        {
            "answer": answers[i],
            "answer_confidence": "yes" if answers[i] == answer else one_of(rng, ("maybe", "no")),
            "answer_id": place + 1,
        }
        for place, i in enumerate(rng.permutation(NUM_ANNOTATORS))
    ]


def _other_answers(answer: str, rng: np.random.Generator) -> list[str]:
    """Return six other answers: at least two written otherwise, at most two of each wrong one."""
    written = [answer.capitalize(), f"{answer}.", answer.upper()]
    if answer.isdigit():
        written = [("zero", *COUNTS)[int(answer)], f"{answer}."]
    elif answer not in ("yes", "no"):
        written += [f"the {answer}", f"a {answer}"]
    pool = next(pool for pool in _POOLS if answer in pool)
    found = [_kept(False, answer, pool, rng) for _ in range(2)]
    if answer in _SYNONYMS:
        found += [_SYNONYMS[answer]] * 2
    drawn = [written[int(i)] for i in rng.permutation(len(written))]
    drawn = (drawn * 3)[: NUM_ANNOTATORS - _FEWEST_EXACT - len(found)]
    both = [*found, *drawn]
    return [both[int(i)] for i in rng.permutation(len(both))]
