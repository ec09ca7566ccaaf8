"""Recipes: one YAML file, checked whole before anything is done.

Precedence, weakest first: defaults of the parameter models, the recipe file, environment
variables (``BEIT3__train__steps=50``), ``--set train.steps=50``. ``${name}`` in a value stands for
what the command gives under that name.
"""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from orchestration.errors import RecipeError
from orchestration.params import OPERATIONAL, StageParams
from orchestration.storage.files import StorageParams

ENVIRONMENT_PREFIX = "BEIT3__"


class ClusterParams(StageParams):
    """The Ray session that a workflow runs on."""

    num_cpus: int | None = Field(default=None, ge=1)
    "Cores of a local session; null takes all of this machine."
    object_store_mb: int = Field(default=512, ge=128)
    "Shared memory of a local session."
    address: str | None = None
    "An existing cluster to join; null starts a local session (or follows RAY_ADDRESS)."


class SliceParams(StageParams):
    """What happens when a slice fails."""

    max_attempts: int = Field(default=3, ge=1)
    "Of a slice in one run; then its stage fails, after the others are finished and kept."
    pause_s: float = Field(default=2, ge=0)
    "Before the second attempt; it doubles with each."
    max_pause_s: float = Field(default=60, ge=0)


class TrackingParams(StageParams):
    """Where MLflow keeps its runs."""

    uri: str | None = None
    "Tracking server; null follows MLFLOW_TRACKING_URI, else sqlite in the workdir."
    experiment: str = "beit3"
    "Name of the MLflow experiment."


class Recipe(StageParams):
    """What every recipe has; a project's own recipe adds its sections."""

    name: Annotated[str, OPERATIONAL]
    "Names the workflow in MLflow and in reports."
    seed: int = 0
    "Every random choice is a pure function of it."
    cluster: Annotated[ClusterParams, OPERATIONAL] = ClusterParams()
    tracking: Annotated[TrackingParams, OPERATIONAL] = TrackingParams()
    storage: Annotated[StorageParams, OPERATIONAL] = StorageParams()
    slices: Annotated[SliceParams, OPERATIONAL] = SliceParams()


R = TypeVar("R", bound=Recipe)


def load_recipe(
    schema: type[R],
    path: Path,
    *,
    variables: Mapping[str, str] = MappingProxyType({}),
    overlay: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> R:
    """Read, override and validate a recipe.

    ``overlay`` changes the file's values before the environment and ``overrides`` do.

    Raises:
        RecipeError: unreadable file, bad override, unknown key or wrong type; the message names
            each place, and the nearest known key for an unknown one.
    """
    values = _read_yaml(path)
    if overlay is not None:
        values = overlay(values)
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            keys = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
            _set(values, keys, _value(text), origin=name)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, as in train.steps=50")
        _set(values, key.split("."), _value(text), origin=f"--set {override}")
    values = _substitute(values, {f"${{{name}}}": text for name, text in variables.items()})
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(schema, path, error)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, this is {type(values)}")
    return values


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{text!r}: not a YAML value: {error}") from None


def _set(values: dict[str, Any], keys: list[str], value: Any, origin: str) -> None:
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{origin}: {key} is a value, not a section")
        values = inner
    values[keys[-1]] = value


def _substitute(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substitute(inner, variables) for inner in value]
    if isinstance(value, str):
        for name, text in variables.items():
            value = value.replace(name, text)
    return value


def _explain(schema: type[BaseModel], path: Path, error: ValidationError) -> str:
    lines = [f"{path}: the recipe has {error.error_count()} error(s), nothing was run"]
    for item in error.errors():
        where = ".".join(str(key) for key in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _known_keys(schema, item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            lines.append(f"  {where}: unknown key{hint}")
        else:
            given = "" if item["type"] == "missing" else f" (given: {item['input']!r})"
            lines.append(f"  {where}: {item['msg']}{given}")
    return "\n".join(lines)


def _known_keys(schema: Any, location: tuple[int | str, ...]) -> list[str]:
    """The field names at ``location``, following unions and containers of models."""
    models = _models_of(schema)
    for key in location:
        inner: list[type[BaseModel]] = []
        for model in models:
            if key in model.model_fields:
                inner += _models_of(model.model_fields[str(key)].annotation)
        # A location also holds list indices, mapping keys and union tags: they change no model.
        models = inner or models
    return sorted({name for model in models for name in model.model_fields})


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_of(argument)]
