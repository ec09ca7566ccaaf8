"""The study recipe: a base recipe, named variants, values per key, and seeds.

    name: masking
    recipe: tiny
    variants: {separate: {}, joint: ablations/joint-masking}
    seeds: [0, 1, 2]
    metrics: [grounding/words/gap]

Runs of one variant differ in the seed alone. The first variant is the one that others are compared
with.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from orchestration.errors import RecipeError
from orchestration.params import StageParams
from orchestration.recipe import load_recipe
from orchestration.recipe_extends import EXTENDS, merged, path_of
from orchestration.recipe_text import read_recipe

_NAME: Final = r"^[\w][\w ./+-]{0,99}$"
_OF_A_RECIPE: Final = ("name", EXTENDS)
"Keys of a recipe that say nothing of what it changes."


def _distinct(values: list[Any]) -> list[Any]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{value} stands twice; leave one out")
    return values


class Study(StageParams):
    """Several runs of one recipe in one workdir."""

    name: str = Field(pattern=_NAME)
    "Name of the study in MLflow and on its page."
    recipe: str
    "Recipe that every run starts from: a built-in name, or a path relative to this file's folder."
    changes: dict[str, Any] = Field(default_factory=dict)
    "Sections and keys in which every run differs from that recipe."
    variants: dict[Annotated[str, Field(pattern=_NAME)], str | dict[str, Any]] = Field(
        default_factory=dict
    )
    "By name: sections and keys that differ, or a recipe that has them over what it extends."
    grid: dict[str, Annotated[list[Any], Field(min_length=1), AfterValidator(_distinct)]] = Field(
        default_factory=dict
    )
    "Values by dotted recipe key; every combination of them is run, the last key changing fastest."
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1), AfterValidator(_distinct)
    ] = Field(default_factory=lambda: [0])
    "Seeds of the training (train.seed of a pretraining, else seed); all else is drawn alike."
    metrics: Annotated[list[str], AfterValidator(_distinct)] = Field(default_factory=list)
    "Numbers of evaluate or score that the page shows; an empty list shows the main ones."


@dataclass(frozen=True)
class Combination:
    """One run of a study."""

    variant: str
    "Name of the variant and values of the grid, as in ``joint, train.lr=0.001``."
    seed: int
    changes: Mapping[str, Any]
    "Sections and keys in which it differs from the base recipe, without the seed."

    @property
    def words(self) -> str:
        """What it is, in words."""
        return f"{self.variant}, seed {self.seed}"


def read_study(path: Path, known: Mapping[str, Path]) -> Study:
    """Read and check a study recipe.

    Args:
        path: YAML file.
        known: recipes that may be named.

    Raises:
        RecipeError: the file cannot be read or has an error.
    """
    return load_recipe(Study, path, known=known, environment={})


def combinations(study: Study, path: Path, known: Mapping[str, Path]) -> list[Combination]:
    """Return the runs of a study, variant by variant; the seed changes fastest.

    Args:
        study: the study.
        path: its file, to whose folder paths of recipes are relative.
        known: recipes by name.

    Raises:
        RecipeError: a recipe that a variant names cannot be read, a key of the grid is wrong, or
            a section takes the place of a value.
    """
    return [
        Combination(variant, seed, changes)
        for variant, changes in _variants(study, path, known)
        for seed in study.seeds
    ]


def base_of(study: Study, path: Path, known: Mapping[str, Path]) -> Path:
    """Return the file of the recipe that every run starts from.

    Raises:
        RecipeError: there is none.
    """
    return path_of(study.recipe, path, known, f"{path}: recipe: {study.recipe}")


def _variants(
    study: Study, path: Path, known: Mapping[str, Path]
) -> Iterator[tuple[str, dict[str, Any]]]:
    variants: Mapping[str, str | dict[str, Any]] = study.variants or {"": {}}
    for key in study.grid:
        if not all(key.split(".")):
            raise RecipeError(f"{path}: grid.{key}: a part of the key is empty; as in train.lr")
    values = [[(key, value) for value in some] for key, some in study.grid.items()]
    for name, variant in variants.items():
        changes = variant
        if isinstance(changes, str):
            changes = _own_keys(
                path_of(variant, path, known, f"{path}: variants.{name}: {variant}")
            )
        where = f"{path}: variants.{name}"
        for chosen in itertools.product(*values):
            words = [name, *(f"{key}={_written(value)}" for key, value in chosen)]
            settings = _merged(study.changes, changes, where)
            for key, value in chosen:
                settings = _merged(settings, _nested(key, value), f"{path}: grid.{key}")
            yield ", ".join(filter(None, words)) or study.recipe, settings


def _own_keys(path: Path) -> dict[str, Any]:
    """Return what a recipe changes in the one that it extends."""
    values, _ = read_recipe(path)
    return {key: value for key, value in values.items() if key not in _OF_A_RECIPE}


def _merged(before: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings with changed keys; RecipeError if a section takes the place of a value."""
    if found := _replaced(before, changes):
        keys, value = found
        raise RecipeError(
            f"{where}: sets keys of the section {'.'.join(keys)}, which the study gives the value "
            f"{_written(value)!s:.99} as well; leave one of them out"
        )
    return merged(before, changes)


def _replaced(
    before: Mapping[str, Any], changes: Mapping[str, Any]
) -> tuple[tuple[str, ...], Any] | None:
    """Return keys and value of the first setting that a section would replace, or None."""
    for key, change in changes.items():
        value = before.get(key)
        if value is None or not isinstance(change, Mapping):
            continue
        if not isinstance(value, Mapping):
            return (key,), value
        if inner := _replaced(value, change):
            return (key, *inner[0]), inner[1]
    return None


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _written(value: Any) -> str:
    """Return a value of a recipe as it was written, but for spaces."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_written(inner)}' for key, inner in value.items())}}}"
    return str(getattr(value, "text", value))
