"""Recipes that extend another one: ``extends: base``, and the keys that differ.

A section is merged key by key; any other value replaces the other recipe's. The engine reads the
result as if it stood in one file.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from orchestration.errors import RecipeError
from orchestration.params import full_path
from orchestration.recipe_text import Lines, read_recipe

Origins = dict[tuple[str, ...], str]
"Where a value comes from (a line, ``--set …``, a variable's name), by the keys that lead to it."

EXTENDS: Final = "extends"


def read_extended(
    path: Path, known: Mapping[str, Path] = MappingProxyType({})
) -> tuple[dict[str, Any], Origins]:
    """Read a recipe with those that it extends; return its values and where each comes from.

    Args:
        path: YAML file.
        known: recipes that may be extended by name. Others are extended by path, which may be
            relative to the folder of the extending one.

    Raises:
        RecipeError: a file cannot be read, or recipes extend each other.
    """
    values, lines = read_recipe(path)
    origins: Origins = {keys: f"line {line}" for keys, line in lines.items()}
    seen = [path.resolve()]
    while (name := values.pop(EXTENDS, None)) is not None:
        where = f"{path}:{lines[EXTENDS,]}: {EXTENDS}: {repr(name)[:200]}"
        path = path_of(name, path, known, where)
        if path.resolve() in seen:
            raise RecipeError(f"{where} extends itself in the end; name another recipe")
        seen.append(path.resolve())
        base, lines = read_recipe(path)
        origins = _origins(lines, path, values) | origins
        values = merged(base, values)
    return values, origins


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with changed keys; mappings within both are merged key by key."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            value = merged(before, value)
        result[key] = value
    return result


def path_of(name: Any, path: Path, known: Mapping[str, Path], where: str) -> Path:
    """Return the file of a recipe that another file names.

    Args:
        name: a known name, or a path that may be relative to the folder of the other file.
        path: the other file.
        known: recipes by name.
        where: what names the recipe, for errors.

    Raises:
        RecipeError: there is no such recipe.
    """
    if not isinstance(name, str) or not name:
        raise RecipeError(f"{where} is no name or path of a recipe; write it as {EXTENDS}: base")
    if name in known:
        return known[name]
    try:
        found = path.parent / full_path(name)
        is_there = found.is_file()
    except (ValueError, OSError) as error:  # an unknown home; a name that is too long
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"{where} is no path of a recipe ({reason})") from None
    if not is_there:
        names = f" and no built-in recipe ({', '.join(known)})" if known else ""
        raise RecipeError(f"{where} is no file{names}")
    return found


def _origins(lines: Lines, path: Path, changes: Mapping[str, Any]) -> Origins:
    """Return the lines of another recipe, apart from keys whose values are replaced."""
    return {
        keys: f"line {line} of {path.name}"
        for keys, line in lines.items()
        if not _is_replaced(keys, changes)
    }


def _is_replaced(keys: tuple[str, ...], changes: Any) -> bool:
    for key in keys:
        if not isinstance(changes, Mapping):
            return True
        if key not in changes:
            return False
        changes = changes[key]
    return not isinstance(changes, Mapping)
