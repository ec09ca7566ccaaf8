"""Fingerprints: the hash that names a stage's output folder.

A fingerprint covers what determines the output and nothing else: the stage's name, code version,
semantic parameters, seed, and the fingerprints of its inputs. A parameter marked ``OPERATIONAL``
is left out. A file that the recipe names enters by content, never by location: a local file by its
bytes, a local folder by the names, sizes and ends of its files, a URI by its size and ETag, the
output of a workflow by what its field's marker reads.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from orchestration.errors import RecipeError
from orchestration.masking import masked_values
from orchestration.params import EXTERNAL_FILE, OPERATIONAL, is_uri, output_at

_SAMPLED_ABOVE_BYTES: Final = 1 << 30
_SAMPLE_BYTES: Final = 1 << 20
_NUM_SAMPLES: Final = 64
_END_BYTES: Final = 1 << 12


def identity_of(
    *,
    name: str,
    version: int,
    params: BaseModel,
    seed: int | None,
    inputs: Mapping[str, Sequence[str]],
    input_fingerprints: Mapping[str, str],
) -> dict[str, Any]:
    """Return everything that a stage's fingerprint is made of, as JSON-able values.

    Args:
        name: name of the stage.
        version: version of its code.
        params: its parameters; operational fields are ignored.
        seed: its seed, or None if it draws no random numbers.
        inputs: names of its input stages by role; the order within a role counts.
        input_fingerprints: fingerprint of each input stage by name.

    Raises:
        RecipeError: a file that the parameters name is missing.
    """
    return {
        "name": name,
        "version": version,
        "params": semantic(params) | ({} if seed is None else {"seed": seed}),
        "inputs": {
            role: [[name, input_fingerprints[name]] for name in names]
            for role, names in inputs.items()
        },
    }


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Return the fingerprint of an identity: 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:16]


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces, so that equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


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
            result[name] = _content_digest(value, field.metadata)
        else:
            result[name] = masked_values(_plain(value))  # a new password changes no result
    return result


def _content_digest(location: str, metadata: Iterable[Any]) -> str:
    if output := output_at(location, metadata):
        return output.digest(location)
    return _uri_digest(location) if is_uri(location) else file_digest(Path(location))


def file_digest(path: Path) -> str:
    """Return a digest of a local file's or folder's content, as ``sha256:<hex>``.

    A very large file is sampled: its size and evenly spaced blocks, the last one included.
    Reading a terabyte archive would cost hours before every plan; the price is that an edit
    between the samples which keeps the size goes unseen.

    Raises:
        RecipeError: the file is missing or cannot be read.
    """
    if path.is_dir():
        return _folder_digest(path)
    if not path.is_file():
        raise RecipeError(f"{path}: no such file; correct the path in the recipe")
    try:
        status = path.stat()
        return _file_digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None


@lru_cache
def _file_digest(path: Path, size: int, _modified_ns: int) -> str:
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


def _folder_digest(path: Path) -> str:
    """Digest the names, sizes and ends of a folder's files; a corpus is too large to read.

    Links are followed, so that a change behind one is seen; a broken link, a circle and a pipe
    enter by name, a file that may not be read by name and size.
    """
    digest = hashlib.sha256()
    for file in sorted(_files_below(path, ()), key=os.fsencode):
        is_file = file.is_file()
        size = file.stat().st_size if is_file else -1
        digest.update(os.fsencode(file.relative_to(path)) + f"\0{size}\0".encode())
        if not is_file:
            continue
        with suppress(OSError), file.open("rb") as opened:
            for start in (0, max(size - _END_BYTES, 0)):
                opened.seek(start)
                digest.update(opened.read(_END_BYTES))
    return f"sha256:{digest.hexdigest()}"


def _files_below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield all files below a folder, also behind links; a circle is yielded and not entered."""
    try:
        status = folder.stat()
        entries = list(folder.iterdir())
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be read ({error.strerror})") from None
    here = (*above, (status.st_dev, status.st_ino))
    for entry in entries:
        if not entry.is_dir() or (entry.stat().st_dev, entry.stat().st_ino) in here:
            yield entry
        else:
            yield from _files_below(entry, here)


def _uri_digest(uri: str) -> str:
    """Digest the size and ETag that the server reports."""
    from orchestration.storage.remote_files import version_of  # only a recipe with URIs needs it

    version = version_of(uri)
    return f"sha256:{hashlib.sha256(f'{version.bytes} {version.tag}'.encode()).hexdigest()}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return semantic(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
