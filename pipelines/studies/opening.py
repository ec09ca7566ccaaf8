"""The runs of a study as opened recipes in one workdir, each checked before any of them runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestration.errors import RecipeError
from orchestration.plan import PlannedStage
from orchestration.recipe_extends import merged, read_extended
from pipelines.builtin_recipes import recipe_path, recipe_paths
from pipelines.open_recipe import STUDY_KEY, Opened, names_study, open_recipe
from pipelines.studies.study import Combination, Study, base_of, combinations, read_study
from pipelines.workflows.kinds import AnyRecipe, recipe_type
from pipelines.workflows.pretrain_recipe import PretrainRecipe


@dataclass(frozen=True)
class StudyRun:
    """One run of a study, ready to be planned or run."""

    words: str
    "Name of the run."
    variant: str
    "What the runs that differ in the seed alone have in common."
    seed: int | None
    opened: Opened

    def plan(self) -> list[PlannedStage]:
        """Return the state of its stages."""
        return self.opened.workflow.plan(self.opened.store)


@dataclass(frozen=True)
class OpenedStudy:
    """A study and its runs."""

    study: Study
    path: Path
    runs: Sequence[StudyRun]


def is_study(name: str) -> bool:
    """Return whether a built-in name or a path is that of a study.

    Raises:
        RecipeError: there is no such file, it cannot be read, or it is a study without a recipe.
    """
    path = recipe_path(name)
    return names_study(path, read_extended(path, recipe_paths())[0])


def open_study(
    name: str,
    workdir: str,
    overrides: Sequence[str],
    console: Console,
    *,
    data: str | None = None,
) -> OpenedStudy:
    """Read a study and open the recipe of each of its runs.

    Args:
        name: name of a built-in study, or path of a file.
        workdir: path or ``s3://`` URI of the workdir that the runs share.
        overrides: values by dotted key, set in every run.
        console: where progress is shown.
        data: value of ``${data}``.

    Raises:
        RecipeError: the study or a recipe has an error, or two runs are the same.
        StoreError: the workdir is a file, lies in one, or cannot be read.
    """
    path, known = recipe_path(name), recipe_paths()
    if not is_study(name):
        raise RecipeError(
            f"{path} is no study: it has no key {STUDY_KEY}, the recipe of its runs; run a single "
            "recipe by `beit3 run`"
        )
    study = read_study(path, known)
    base = base_of(study, path, known)
    runs = []
    for each in combinations(study, path, known):
        try:
            changes = _with_seed(each, base, f"{study.name}: {each.words}")
            opened = open_recipe(str(base), workdir, overrides, console, data=data, changes=changes)
            _refuse_other_seed(opened.recipe, each.seed)
            _refuse_other_name(opened.recipe, str(changes["name"]))
        except RecipeError as error:
            raise RecipeError(f"{path}: {each.words}: {error}") from None
        runs.append(StudyRun(each.words, each.variant, each.seed, opened))
    _refuse_equal(path, runs)
    return OpenedStudy(study, path, runs)


def _with_seed(run: Combination, base: Path, name: str) -> dict[str, Any]:
    """Return the changes of a run, with its name and the seed of its training.

    The seed of a pretraining is that of its section ``train``: the recipe's own seed enters the
    tokens, which the runs of a study share.

    Raises:
        RecipeError: the changes set what the study sets, or replace the section of the seed.
    """
    values = merged(read_extended(base, recipe_paths())[0], run.changes)
    seed: dict[str, Any] = {"seed": run.seed}
    section, words = run.changes, "seed"
    if recipe_type(values) is PretrainRecipe:
        seed, section, words = {"train": seed}, run.changes.get("train", {}), "train.seed"
        if not isinstance(section, Mapping):
            raise RecipeError(f"train: {section} is no section; give it keys, as in train.steps")
    if "seed" in section:
        raise RecipeError(f"{words}: the study's key `seeds` sets it; leave it out of the changes")
    if "name" in run.changes:
        raise RecipeError("name: the study's names are those of its runs; leave it out")
    return merged(merged(run.changes, seed), {"name": name})


def _refuse_other_seed(recipe: AnyRecipe, seed: int) -> None:
    """Raise RecipeError if --set or the environment gives the training another seed."""
    if isinstance(recipe, PretrainRecipe):
        key, found = "train.seed", recipe.train.seed
    else:
        key, found = "seed", recipe.seed
    if found != seed:
        raise RecipeError(
            f"{key}: --set or the environment says {found}; give it as `seeds: [{found}]`"
        )


def _refuse_other_name(recipe: AnyRecipe, name: str) -> None:
    """Raise RecipeError if --set or the environment gives all runs one name."""
    if recipe.name != name:
        raise RecipeError(
            f"name: --set or the environment says {recipe.name}; the study names its runs, so "
            "leave it out"
        )


def _refuse_equal(path: Path, runs: Sequence[StudyRun]) -> None:
    found: dict[tuple[str, ...], str] = {}
    for run in runs:
        key = tuple(planned.fingerprint for planned in run.plan())
        if key in found:
            raise RecipeError(
                f"{path}: {found[key]} and {run.words} are the same run; remove one, or the "
                "--set or environment variable that makes them equal"
            )
        found[key] = run.words
