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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict


class _Marker:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


OPERATIONAL: Final = _Marker("OPERATIONAL")
EXTERNAL_FILE: Final = _Marker("EXTERNAL_FILE")
OR_URI: Final = _Marker("OR_URI")


class StageParams(BaseModel):
    """Base class of every parameter model: frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class ExternalFile:
    """A file or folder that a recipe names."""

    key: str
    "Dotted key in the recipe."
    location: str
    "Path or URI."
    or_uri: bool
    "Whether the key accepts a URI."

    @property
    def is_remote(self) -> bool:
        """Whether the location is a URI."""
        return is_uri(self.location)


def external_files(params: BaseModel, key: str = "") -> Iterator[ExternalFile]:
    """Yield each external file that ``params`` and the models within it name."""
    for name, field in type(params).model_fields.items():
        value, full_key = getattr(params, name), f"{key}{name}"
        if EXTERNAL_FILE in field.metadata and value is not None:
            yield ExternalFile(full_key, value, OR_URI in field.metadata)
        else:
            for inner_key, inner in _models_in(value, full_key):
                yield from external_files(inner, f"{inner_key}.")


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
