"""The recipes that come with the package: ``recipes/*.yaml`` by name.

The first comment line of a file is its summary. Only the standard library is used, as shell
completion reads the names.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "recipes"
SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True)
class BuiltinRecipe:
    """A recipe file of the package."""

    path: Path
    summary: str
    "First comment line of the file."


def builtin_recipes() -> dict[str, BuiltinRecipe]:
    """Return the built-in recipes by name, sorted; a recipe in a sub-folder is ``folder/name``."""
    return {
        path.relative_to(FOLDER).with_suffix("").as_posix(): BuiltinRecipe(path, _summary(path))
        for path in sorted(FOLDER.rglob("*.yaml"))
    }


def _summary(path: Path) -> str:
    with path.open() as file:
        return file.readline().removeprefix("#").strip()


def recipe_paths() -> dict[str, Path]:
    """Return the files of the built-in recipes by name: those that another recipe may extend."""
    return {name: recipe.path for name, recipe in builtin_recipes().items()}


def recipe_path(name: str) -> Path:
    """Return the file of a built-in recipe's name, or the path that ``name`` is.

    Raises:
        orchestration.errors.RecipeError: ``name`` is neither; the message lists the names.
    """
    known = builtin_recipes()
    if name in known:
        return known[name].path
    path = Path(name).expanduser()
    if path.suffix in SUFFIXES or path.is_file():
        return path
    from orchestration.errors import RecipeError

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RecipeError(
        f"no built-in recipe is named {name!r}: {hint}built-in recipes are {', '.join(known)}; "
        "the path of a recipe file ends in .yaml"
    )


def complete_recipe(incomplete: str) -> list[str]:
    """Return the built-in names and the YAML files that start with ``incomplete``."""
    folder = Path(incomplete).parent
    files = [str(path) for suffix in SUFFIXES for path in folder.glob(f"*{suffix}")]
    return [name for name in (*builtin_recipes(), *sorted(files)) if name.startswith(incomplete)]
