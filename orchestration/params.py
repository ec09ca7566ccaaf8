"""Parameter models of stages, and the markers of their fields.

A *semantic* field changes the result and enters the fingerprint. An *operational* field says only
where, how fast and how patiently the work is done, what is reported, and below which quality or
above which number of failures it ends with an error; it is left out of the fingerprint, so that
following the advice of such an error throws no work away. An external file enters by
its content; see :mod:`orchestration.fingerprint`.

    class Params(StageParams):
        quality: int = 90                             # semantic
        num_workers: Annotated[int, OPERATIONAL] = 2  # operational
        urls: Annotated[str, EXTERNAL_FILE]           # a path; the file's content is semantic
        list: Annotated[str, EXTERNAL_FILE, OR_URI]   # a path or a URI; the content is semantic
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class _Marker:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


OPERATIONAL: Final = _Marker("OPERATIONAL")
EXTERNAL_FILE: Final = _Marker("EXTERNAL_FILE")
OR_URI: Final = _Marker("OR_URI")


@dataclass(frozen=True)
class OrOutput:
    """Marker of an external file: it may also be a folder that a workflow has written."""

    is_folder: Callable[[str], bool]
    "Returns whether a path or URI is such a folder."
    digest: Callable[[str], str]
    "Returns a digest of the folder's content; raises RecipeError if it cannot be used."


GpusPerActor = Annotated[
    float,
    OPERATIONAL,
    Field(
        ge=0,
        le=1,
        description="Fraction of a GPU that each actor reserves; actors share a GPU below 1.",
    ),
]


class StageParams(BaseModel):
    """Base class of every parameter model: frozen; an unknown key is an error.

    Text is not empty. A number must be finite and is never true or false. A number where text is
    expected becomes the text that stands in the recipe. A path may begin with ``~``, the user's
    home.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        str_min_length=1,
    )

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            name: _read_as(value, _kinds(cls.model_fields[name].annotation))
            if name in cls.model_fields
            else value
            for name, value in values.items()
        }

    @field_validator("*", mode="after")
    @classmethod
    def _full_path(cls, value: Any, info: ValidationInfo) -> Any:
        if EXTERNAL_FILE in cls.model_fields[str(info.field_name)].metadata and value is not None:
            return full_path(value)
        return value


@dataclass(frozen=True)
class ExternalFile:
    """A file or folder that a recipe names."""

    key: str
    "Dotted key in the recipe."
    location: str
    "Path or URI."
    or_uri: bool
    "Whether the key accepts a URI."
    output: OrOutput | None = None
    "How a folder that a workflow has written is read; None for any other file or folder."

    @property
    def is_remote(self) -> bool:
        """Whether the location is the URI of a file."""
        return is_uri(self.location) and self.output is None


def external_files(params: BaseModel, key: str = "") -> Iterator[ExternalFile]:
    """Yield each external file that ``params`` and the models within it name."""
    for name, field in type(params).model_fields.items():
        value, full_key = getattr(params, name), f"{key}{name}"
        if EXTERNAL_FILE in field.metadata and value is not None:
            output = output_at(value, field.metadata)
            yield ExternalFile(full_key, value, OR_URI in field.metadata, output)
        else:
            for inner_key, inner in _models_in(value, full_key):
                yield from external_files(inner, f"{inner_key}.")


def output_at(location: str, metadata: Iterable[Any]) -> OrOutput | None:
    """Return how to read a location if a field's markers say that it is a workflow's folder."""
    marks = (mark for mark in metadata if isinstance(mark, OrOutput))
    return next((mark for mark in marks if mark.is_folder(location)), None)


def full_path(location: str) -> str:
    """Return a path or URI with ``~`` replaced by the user's home.

    Raises:
        ValueError: the location is empty, or the home is unknown.
    """
    if not location.strip():
        raise ValueError("empty; give a path, or leave the key out")
    if not location.startswith("~"):
        return location
    try:
        return str(Path(location).expanduser())
    except RuntimeError:
        raise ValueError(f"no home is known for {location.partition('/')[0]}") from None


def is_uri(location: str) -> bool:
    """Return whether a location is a URI rather than a path."""
    return "://" in location


def _models_in(value: Any, key: str) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _models_in(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _models_in(inner, f"{key}.{i}")


def _kinds(annotation: Any) -> set[type]:
    """Return the types of the values within an annotation: ``list[str] | None`` gives str."""
    if get_origin(annotation) is Literal:
        return {type(choice) for choice in get_args(annotation)}
    if inner := get_args(annotation):
        return set().union(*map(_kinds, inner))
    return {annotation} if isinstance(annotation, type) and annotation is not NoneType else set()


def _read_as(value: Any, kinds: set[type]) -> Any:
    """Return a value as a field of these kinds takes it.

    A number becomes its text where only text is expected. ``true`` becomes text where a number is
    expected, which is then refused: pydantic would take it for 1.
    """
    if isinstance(value, list | tuple):
        return type(value)(_read_as(inner, kinds) for inner in value)
    if isinstance(value, dict):
        of_models = any(issubclass(kind, BaseModel) for kind in kinds)
        return value if of_models else {k: _read_as(inner, kinds) for k, inner in value.items()}
    is_number = bool(kinds & {int, float})
    if isinstance(value, bool):
        return str(value).lower() if is_number and bool not in kinds else value
    return value if is_number or str not in kinds else getattr(value, "text", value)
