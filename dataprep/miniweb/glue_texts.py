"""Labeled sentences in the grammar's language, as in tasks of GLUE.

| function | task | label | decided by |
|---|---|---|---|
| ``acceptability`` | CoLA | ``1`` or ``0`` | word order, agreement of number |
| ``sentiment`` | SST-2 | ``1`` or ``0`` | words of praise and blame, ``not``, ``but`` |
| ``paraphrase`` | MRPC | ``1`` or ``0`` | whether both sentences tell the same facts |
| ``entailment`` | RTE | ``entailment``, ``not_entailment`` | if the first tells the second |
| ``similarity`` | STS-B | ``0.000`` to ``5.000`` | the fraction of facts that both tell |
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dataprep.miniweb.grammar import (
    BACKGROUNDS,
    COLORS,
    COUNTS,
    RELATIONS,
    SHAPES,
    SIZES,
    TECHNIQUES,
    TEXTURES,
    Group,
    Scene,
    capital,
    caption,
    one_of,
    plural,
    random_scene,
)

_ACCEPTABLE: Final = 0.65
"Fraction of acceptable sentences; CoLA has about as many."
_SAME: Final = 0.6
"Fraction of paraphrases; MRPC has somewhat more."
_MOST_SIMILAR: Final = 5
_PRAISE: Final = ("fine", "good", "nice")
_BLAME: Final = ("bad", "poor", "ugly")
_NEGATED: Final = 0.25
"Fraction of judgments with ``not``."
_GROUP_FACTS: Final = {
    "count": tuple(range(1, 5)),
    "size": SIZES,
    "color": tuple(COLORS),
    "texture": TEXTURES,
    "shape": SHAPES,
}
_FACTS: Final = (*_GROUP_FACTS, "background")


@dataclass(frozen=True)
class LabeledTexts:
    """One sentence or two, with a label."""

    texts: tuple[str, ...]
    label: str


def acceptability(rng: np.random.Generator) -> LabeledTexts:
    """Draw a caption; an unacceptable one has a noun phrase or a relation that is wrong."""
    scene = random_scene(rng)
    text, is_good = caption(scene, rng), rng.random() < _ACCEPTABLE
    if not is_good:
        text = _spoiled(text, scene, rng)
    return LabeledTexts((f"{capital(text)}.",), str(int(is_good)))


def _spoiled(text: str, scene: Scene, rng: np.random.Generator) -> str:
    group = scene.groups[int(rng.integers(len(scene.groups)))]
    kind = int(rng.integers(3))
    if kind == 0:  # "two circle", "a circles"
        other = group.shape if group.count > 1 else plural(group.shape)
        return text.replace(group.phrase, group.phrase.removesuffix(group.noun) + other)
    if kind == 1 and len(scene.groups) == 2:  # "of left"
        relation = next(r for r in RELATIONS if f" {r} " in text)
        wrong = " ".join(relation.split()[::-1]) if " " in relation else f"{relation} of"
        return text.replace(f" {relation} ", f" {wrong} ")
    words = group.phrase.split()  # "a red large circle"
    place = int(rng.integers(len(words) - 1))
    words[place : place + 2] = words[place : place + 2][::-1]
    return text.replace(group.phrase, " ".join(words))


def sentiment(rng: np.random.Generator) -> LabeledTexts:
    """Draw a judgment of a work in the style of SST-2: lower case, punctuation set apart."""
    group, is_good = random_scene(rng).groups[0], bool(rng.integers(2))
    work = one_of(rng, tuple(TECHNIQUES.values()))
    judged, again = _judgment(is_good, rng), _judgment(is_good, rng)
    contrary = _judgment(not is_good, rng)
    text = one_of(
        rng,
        (
            f"the {work} of {group.phrase} is {judged}",
            f"the {group.noun} {group.be} {judged} , and the background is {again}",
            f"the background is {contrary} , but the {work} is {judged}",
            f"{judged} {work} with {group.phrase}",
        ),
    )
    return LabeledTexts((f"{text} .",), str(int(is_good)))


def _judgment(is_good: bool, rng: np.random.Generator) -> str:
    if rng.random() < _NEGATED:
        return f"not {one_of(rng, _BLAME if is_good else _PRAISE)}"
    return one_of(rng, _PRAISE if is_good else _BLAME)


def paraphrase(rng: np.random.Generator) -> LabeledTexts:
    """Draw two captions of one scene, or of two that differ in one fact or two."""
    scene, is_same = random_scene(rng, 1), rng.random() < _SAME
    other = scene if is_same else _changed(scene, int(rng.integers(1, 3)), rng)
    return LabeledTexts(_two_captions(scene, other, rng), str(int(is_same)))


def similarity(rng: np.random.Generator) -> LabeledTexts:
    """Draw two captions whose scenes share some facts; the label grows with their number."""
    scene, num_changed = random_scene(rng, 1), int(rng.integers(len(_FACTS) + 1))
    score = _MOST_SIMILAR * (1 - num_changed / len(_FACTS))
    texts = _two_captions(scene, _changed(scene, num_changed, rng), rng)
    return LabeledTexts(texts, f"{score:.3f}")


def _two_captions(scene: Scene, other: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Return a caption of each scene, with different words."""
    first = caption(scene, rng)
    while (second := caption(other, rng)) == first:
        pass
    return f"{capital(first)}.", f"{capital(second)}."


def _changed(scene: Scene, number: int, rng: np.random.Generator) -> Scene:
    """Return a scene of one group that differs in exactly ``number`` facts."""
    values: dict[str, Any] = {}
    for i in rng.permutation(len(_FACTS))[:number]:
        name = _FACTS[i]
        if name == "background":
            scene = replace(scene, background=_other(BACKGROUNDS, scene.background, rng))
        else:
            values[name] = _other(_GROUP_FACTS[name], getattr(scene.groups[0], name), rng)
    return replace(scene, groups=(replace(scene.groups[0], **values),))


def _other(words: Iterable[Any], word: Any, rng: np.random.Generator) -> Any:
    """Draw one of ``words`` that is not ``word``."""
    others = [other for other in words if other != word]
    return others[int(rng.integers(len(others)))]


def entailment(rng: np.random.Generator) -> LabeledTexts:
    """Draw a caption, and a sentence that it tells, or that is false or not told."""
    scene, is_true = random_scene(rng), bool(rng.integers(2))
    group = scene.groups[int(rng.integers(len(scene.groups)))]
    told, shapes = (scene, group), {g.shape for g in scene.groups}
    if not is_true:
        told = _all_false(scene, group, rng)
    shape = group.shape if is_true else one_of(rng, [s for s in SHAPES if s not in shapes])
    background, relation, about = told[0].background, told[0].relation, told[1]
    kinds = [
        f"The {group.noun} {group.be} {about.color}.",
        f"The {group.noun} {group.be} {about.size}.",
        f"There {about.be} {COUNTS[about.count - 1]} {about.noun}.",
        f"There is a {shape}.",
        f"The background is {background}.",
    ]
    if "plain" not in (group.texture, about.texture):  # captions do not tell "plain"
        kinds.append(f"The {group.noun} {group.be} {about.texture}.")
    if len(scene.groups) == 2:
        first, second = scene.groups
        kinds.append(f"The {first.noun} {first.be} {relation} the {second.noun}.")
    texts = (f"{capital(caption(scene, rng))}.", one_of(rng, kinds))
    return LabeledTexts(texts, "entailment" if is_true else "not_entailment")


def _all_false(scene: Scene, group: Group, rng: np.random.Generator) -> tuple[Scene, Group]:
    """Return a scene and a group that differ in every fact but the shapes."""
    background = _other(BACKGROUNDS, scene.background, rng)
    relation = _other(RELATIONS, scene.relation, rng)
    names = [name for name in _GROUP_FACTS if name != "shape"]
    values = {name: _other(_GROUP_FACTS[name], getattr(group, name), rng) for name in names}
    return replace(scene, background=background, relation=relation), replace(group, **values)
