"""Parameters of stages: frozen pydantic models whose fields have a meaning or only a place.

A field that changes the result is *semantic*; one that only says where or how fast is
*operational* and is left out of the fingerprint. A file given from outside enters by what it
holds, not by where it lies.

    class Params(StageParams):
        quality: int = 90                             # semantic
        num_workers: Annotated[int, OPERATIONAL] = 2  # operational
        urls: Annotated[str, EXTERNAL_FILE]           # the file's content is semantic
        list: Annotated[str, EXTERNAL_FILE, OR_URI]   # the same, and it may lie behind a URI
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from orchestration.errors import RecipeError


class _Marker:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


OPERATIONAL: Final = _Marker("OPERATIONAL")
EXTERNAL_FILE: Final = _Marker("EXTERNAL_FILE")
OR_URI: Final = _Marker("OR_URI")

_SAMPLED_ABOVE_BYTES: Final = 1 << 30
_SAMPLE_BYTES: Final = 1 << 20
_NUM_SAMPLES: Final = 64
_END_BYTES: Final = 1 << 12


class StageParams(BaseModel):
    """Base of every parameter model: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class ExternalFile:
    """A file or folder that a recipe names."""

    key: str
    "In the recipe."
    place: str
    "Path, or URI."
    or_uri: bool
    "Whether the key takes a URI."

    @property
    def is_remote(self) -> bool:
        """Whether it is given by URI."""
        return _is_uri(self.place)


def external_files(params: BaseModel, key: str = "") -> Iterator[ExternalFile]:
    """Yield each external file that ``params`` names."""
    for name, field in type(params).model_fields.items():
        value, where = getattr(params, name), f"{key}{name}"
        if EXTERNAL_FILE in field.metadata and value is not None:
            yield ExternalFile(where, value, OR_URI in field.metadata)
        else:
            for inner_key, inner in _models_in(value, where):
                yield from external_files(inner, f"{inner_key}.")


def semantic(params: BaseModel) -> dict[str, Any]:
    """Return the fields of ``params`` that change a result, as JSON-able values.

    Raises:
        RecipeError: an external file is missing.
    """
    result: dict[str, Any] = {}
    for name, field in type(params).model_fields.items():
        value = getattr(params, name)
        if OPERATIONAL in field.metadata:
            continue
        if EXTERNAL_FILE in field.metadata and value is not None:
            result[name] = _external_digest(value)
        else:
            result[name] = _plain(value)
    return result


def _is_uri(place: str) -> bool:
    return "://" in place


def _external_digest(place: str) -> str:
    if not _is_uri(place):
        return file_digest(Path(place))
    from orchestration.storage.remote_files import version_of

    return version_of(place).digest


def file_digest(path: Path) -> str:
    """Return a digest of the file's content.

    Files above 1 GiB are sampled: their size and evenly spaced blocks, the last one included.
    A terabyte archive would otherwise cost hours before every plan; the price is that an edit
    between the samples which keeps the size goes unseen.

    Raises:
        RecipeError: the file is missing.
    """
    if path.is_dir():
        return _folder_digest(path)
    if not path.is_file():
        raise RecipeError(f"{path}: no such file")
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


def _folder_digest(path: Path) -> str:
    """Digest names, sizes and ends of the files within: whole corpora are too large to read."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()}\0{size}\0".encode())
        with file.open("rb") as opened:
            for start in (0, max(size - _END_BYTES, 0)):
                opened.seek(start)
                digest.update(opened.read(_END_BYTES))
    return f"sha256:{digest.hexdigest()}"


@lru_cache
def _digest(path: Path, size: int, _modified_ns: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _SAMPLED_ABOVE_BYTES:
            while block := file.read(_SAMPLE_BYTES):
                digest.update(block)
        else:
            for i in range(_NUM_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * i // (_NUM_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"


def _models_in(value: Any, key: str) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _models_in(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _models_in(inner, f"{key}.{i}")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return semantic(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
