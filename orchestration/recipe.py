"""Recipes: one YAML file, validated completely before anything runs.

Precedence, weakest first: defaults of the parameter models, the recipe that another extends, the
recipe file, environment variables (``BEIT3__train__steps=50``), ``--set train.steps=50``.
``${name}`` in a value is replaced by the variable of that name, which the command defines.
"""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator

from orchestration.errors import RecipeError
from orchestration.params import OPERATIONAL, StageParams, full_path
from orchestration.recipe_extends import Origins, read_extended
from orchestration.recipe_text import parse_value
from orchestration.storage.files import StorageParams

_SQLITE = "sqlite:///"
ENVIRONMENT_PREFIX = "BEIT3__"
_SECTION_TYPES = ("model_type", "model_attributes_type", "dict_type", "dict_attributes_type")
_SPELLINGS = {
    "int_parsing": "; write digits, as in 1000000, 1_000_000 or 1e6",
    "float_parsing": "; write digits, as in 0.5, 1000 or 1e-6",
    "string_type": "; put the text in quotes",
    "bool_parsing": "; write true or false",
    "bool_type": "; write true or false",
    "string_too_short": "; leave the key out, or write null where nothing is meant",
    "invalid_key": "; put the key in quotes",
}
"What to write instead, by the type of pydantic's error."
_MAX_SHOWN = 80
"Largest number of characters of a wrong value in a message."


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


R = TypeVar("R", bound=Recipe)


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
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            keys = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
            _set(values, keys, text, name, origins)
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, as in train.steps=50")
        _set(values, key.split("."), text, f"--set {key}", origins)
    values = _substitute(values, {f"${{{name}}}": text for name, text in variables.items()})
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(schema, path, error, values, origins)) from None


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
    path: Path,
    error: ValidationError,
    values: Mapping[str, Any],
    origins: Origins,
) -> str:
    number = error.error_count()
    words = "1 error" if number == 1 else f"{number} errors"
    lines = [f"{path}: the recipe has {words}, nothing was run"]
    for item in error.errors():
        where = ".".join(keys_in(values, item))
        message, origin = message_of(schema, item), _origin(item["loc"], origins)
        lines.append(f"  {f'{where}: ' if where else ''}{message}{origin}")
    return "\n".join(lines)


def keys_in(values: Any, item: Mapping[str, Any]) -> list[str]:
    """Return the keys that lead to one of pydantic's errors.

    The tags of unions stand in its location and not in the values, as the key that is missing does.
    """
    keys: list[str] = []
    for key in item["loc"]:
        is_index = isinstance(values, list) and isinstance(key, int) and key < len(values)
        if is_index or (isinstance(values, dict) and key in values):
            keys.append(str(key))
            values = values[key]
    return [*keys, str(item["loc"][-1])] if item["type"] == "missing" else keys


def message_of(schema: type[BaseModel], item: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors in words; for an unknown key, with the nearest known one.

    Args:
        schema: model of the values.
        item: an entry of ``ValidationError.errors()``.
    """
    if item["type"] != "extra_forbidden":
        return f"{_words(item)}{_given(item)}"
    known = _known_keys(schema, item["loc"][:-1])
    near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown key; {hint}"


def _words(item: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, and how to spell what was probably meant."""
    message: str = item["msg"].removeprefix("Value error, ")
    if item["type"] in _SECTION_TYPES and item["input"] is None:
        return "the section is empty; remove it or give it a key"
    if item["type"] == "union_tag_not_found":
        return f"the key {item['ctx']['discriminator']} is missing"
    if item["type"] == "union_tag_invalid":
        key, tag = item["ctx"]["discriminator"].strip("'"), item["ctx"]["tag"]
        known = item["ctx"]["expected_tags"].replace("'", "").split(", ")
        near = difflib.get_close_matches(tag, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown {key} {tag!r}; {hint}known: {', '.join(known)}"
    return message + _SPELLINGS.get(item["type"], "")


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


def _given(item: Mapping[str, Any]) -> str:
    """Return the wrong value in words; a section is not shown, its message names the keys."""
    if item["type"] == "missing" or isinstance(item["input"], dict | BaseModel):
        return ""
    text = getattr(item["input"], "text", repr(item["input"]))
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}…"
    return f" (given: {text})"


def _known_keys(schema: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the field names at ``location``, following unions and containers of models."""
    models = _models_of(schema)
    for key in location:
        inner: list[type[BaseModel]] = []
        for model in models:
            if key in model.model_fields:
                inner += _models_of(model.model_fields[str(key)].annotation)
        # Other entries are list indices, mapping keys and union tags, which lead to no other model.
        models = inner or models
    return sorted({name for model in models for name in model.model_fields})


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_of(argument)]
