"""Recipes: one YAML file, validated completely before anything runs.

Precedence, weakest first: defaults of the parameter models, the recipe that another extends, the
recipe file, environment variables (``BEIT3__train__steps=50``), ``--set train.steps=50``.
``${name}`` in a value is replaced by the variable of that name, which the command defines.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from orchestration.errors import RecipeError
from orchestration.params import OPERATIONAL, StageParams, full_path
from orchestration.recipe_errors import keys_in, message_of
from orchestration.recipe_extends import Origins, read_extended
from orchestration.recipe_text import parse_value
from orchestration.storage.files import StorageParams

_SQLITE = "sqlite:///"
ENVIRONMENT_PREFIX = "BEIT3__"


class ClusterParams(StageParams):
    """The Ray session of a workflow."""

    num_cpus: int | None = Field(default=None, ge=1)
    "Number of CPU cores of a local session; null uses all cores of the machine."
    object_store_mb: int = Field(default=512, ge=128)
    "Shared memory for the object store of a local session, in MiB."
    address: str | None = None
    "Address of an existing cluster; null follows RAY_ADDRESS, else starts a local session."

    @property
    def joined(self) -> str | None:
        """Return the address of the cluster that is joined; None for a session on this machine."""
        return self.address or os.environ.get("RAY_ADDRESS") or None


class SliceParams(StageParams):
    """Retries of slices that fail."""

    max_attempts: int = Field(default=3, ge=1)
    "Largest number of attempts at a slice in one run before its stage fails."
    pause_s: float = Field(default=2, ge=0)
    "Seconds before the second attempt at failed slices; doubles with each further attempt."
    max_pause_s: float = Field(default=60, ge=0)
    "Longest pause between two attempts in seconds."


class TrackingParams(StageParams):
    """The MLflow tracking store."""

    uri: str | None = None
    "URI of the tracking server; null follows MLFLOW_TRACKING_URI, else uses SQLite in the workdir."
    experiment: str = "beit3"
    "Name of the MLflow experiment."

    @field_validator("uri")
    @classmethod
    def _full_uri(cls, uri: str | None) -> str | None:
        for scheme in ("", _SQLITE):
            if uri is not None and uri.startswith(f"{scheme}~"):
                return scheme + full_path(uri.removeprefix(scheme))
        return uri


class Recipe(StageParams):
    """The sections that every recipe has; a workflow's recipe model adds its own."""

    name: Annotated[str, OPERATIONAL]
    "Name of the workflow in MLflow and in reports."
    seed: int = Field(default=0, ge=0, lt=2**63)
    "Seed of every random choice."
    cluster: Annotated[ClusterParams, OPERATIONAL] = ClusterParams()
    "Ray session of the workflow."
    tracking: Annotated[TrackingParams, OPERATIONAL] = TrackingParams()
    "MLflow tracking store."
    storage: Annotated[StorageParams, OPERATIONAL] = StorageParams()
    "Access to an object store."
    slices: Annotated[SliceParams, OPERATIONAL] = SliceParams()
    "Retries of slices that fail."


R = TypeVar("R", bound=StageParams)


def load_recipe(
    schema: type[R],
    path: Path,
    *,
    known: Mapping[str, Path] = MappingProxyType({}),
    variables: Mapping[str, str] = MappingProxyType({}),
    overlay: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> R:
    """Read, override and validate a recipe.

    Args:
        schema: model of the recipe.
        path: YAML file.
        known: recipes that it may extend by name.
        variables: values of ``${name}`` by name.
        overlay: changes the values of the file before the environment and ``overrides`` do.
        overrides: assignments such as ``train.steps=50``.
        environment: environment variables.

    Raises:
        RecipeError: unreadable file, invalid override, unknown key or wrong type. The message
            names the key of each error and, for an unknown key, the nearest known one.
    """
    values, origins = read_extended(path, known)
    if overlay is not None:
        values, origins = overlay(values), {}
    assignments = (*_of_environment(environment), *_of_overrides(overrides))
    return _complete(schema, str(path), values, assignments, origins, variables)


def complete_recipe(
    schema: type[R], where: str, values: dict[str, Any], overrides: Iterable[str] = ()
) -> R:
    """Override and validate the values of a recipe that stands in no file.

    Args:
        schema: model of the recipe.
        where: what gives the values, for errors.
        values: sections and their values.
        overrides: assignments such as ``train.steps=50``; environment variables come before them.

    Raises:
        RecipeError: as :func:`load_recipe`.
    """
    assignments = (*_of_environment(os.environ), *_of_overrides(overrides))
    return _complete(schema, where, values, assignments, {}, {})


def _complete(
    schema: type[R],
    where: str,
    values: dict[str, Any],
    assignments: Iterable[tuple[list[str], str, str]],
    origins: Origins,
    variables: Mapping[str, str],
) -> R:
    for keys, text, origin in assignments:
        _set(values, keys, text, origin, origins)
    values = _substitute(values, {f"${{{name}}}": text for name, text in variables.items()})
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(schema, where, error, values, origins)) from None


def _of_environment(environment: Mapping[str, str]) -> Iterator[tuple[list[str], str, str]]:
    """Yield keys, text and origin of each value."""
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            yield name.removeprefix(ENVIRONMENT_PREFIX).split("__"), text, name


def _of_overrides(overrides: Iterable[str]) -> Iterator[tuple[list[str], str, str]]:
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, as in train.steps=50")
        yield key.split("."), text, f"--set {key}"


def _set(values: dict[str, Any], keys: list[str], text: str, origin: str, origins: Origins) -> None:
    """Set the value at ``keys``, and note where it and the values within it come from."""
    if not all(keys):
        raise RecipeError(f"{origin}: a part of the key is empty; write it as train.steps")
    for i, key in enumerate(keys[:-1]):
        if values.get(key) is None:
            values[key] = {}  # a section whose lines are all comments is empty
        if not isinstance(values[key], dict):
            raise RecipeError(f"{origin}: {'.'.join(keys[: i + 1])} is a value, not a section")
        values = values[key]
    try:
        values[keys[-1]] = parse_value(text)
    except RecipeError as error:
        raise RecipeError(f"{origin}: {error}") from None
    path = tuple(keys)
    for known in [known for known in origins if known[: len(path)] == path]:
        del origins[known]
    origins[path] = origin


def _substitute(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substitute(inner, variables) for inner in value]
    if isinstance(value, str):
        for name, text in variables.items():
            value = value.replace(name, text)
    return value


def _explain(
    schema: type[BaseModel],
    where: str,
    error: ValidationError,
    values: Mapping[str, Any],
    origins: Origins,
) -> str:
    number = error.error_count()
    words = "1 error" if number == 1 else f"{number} errors"
    lines = [f"{where}: the recipe has {words}, nothing was run"]
    for item in error.errors():
        key = ".".join(keys_in(values, item))
        message, origin = message_of(schema, item), _origin(item["loc"], origins)
        lines.append(f"  {f'{key}: ' if key else ''}{message}{origin}")
    return "\n".join(lines)


def _origin(location: tuple[int | str, ...], origins: Origins) -> str:
    """Return in brackets where the value at ``location`` comes from, if that is known.

    Tags of unions stand in a location and not in a recipe.
    """
    found: str = ""
    keys: tuple[str, ...] = ()
    for name in map(str, location):
        if any(known[: len(keys) + 1] == (*keys, name) for known in origins):
            keys = (*keys, name)
            found = origins.get(keys, found)
    return f" ({found})" if found else ""
