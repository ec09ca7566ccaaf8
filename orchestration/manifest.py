"""Parts and manifests: what a stage has committed, in two kinds of small JSON file.

``parts/<slice>.json`` says that one slice is whole; it is written after the slice's Parquet files.
``manifest.json`` says that the whole output is; it is written last. Readers trust nothing else.
Neither holds times or hosts, so the same work gives the same bytes.
"""

import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestration.errors import ManifestError
from orchestration.storage.store import Store

SCHEMA_VERSION: Final = 3
MANIFEST: Final = "manifest.json"
PARTS: Final = "parts"
REJECTS: Final = "rejects"
_READERS: Final = 32
"Threads that read parts from an object store, where each read waits for an answer."


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_bytes(self) -> bytes:
        """Return canonical JSON: sorted keys, one trailing newline."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"


class File(_Record):
    """One committed file."""

    path: str
    bytes: int
    sha256: str


class TablePart(File):
    """One committed Parquet file of a table."""

    num_rows: int
    row_groups: tuple[int, ...]
    "Rows of each row group."


class Part(_Record):
    """What one slice committed."""

    slice: str
    num_rows_in: int
    tables: dict[str, TablePart]
    rejects: dict[str, int]
    "Rejected rows by reason."
    counters: dict[str, int]


class Parent(_Record):
    """An input of a stage."""

    stage: str
    fingerprint: str
    manifest_sha256: str


class Manifest(_Record):
    """A stage's whole output."""

    schema_version: int
    stage: str
    fingerprint: str
    params: dict[str, Any]
    parents: dict[str, list[Parent]]
    parts: list[Part]
    columns: dict[str, list[str]]
    "Of each table, with their types, as every part of it has them."
    files: list[File]
    rounds: list[list[str]]
    "Of retries: the reasons that each was for."
    numbers: dict[str, float]
    "Results of a stage that has no rows (a loss, a vocabulary size)."

    @property
    def num_rows_in(self) -> int:
        """Rows that went in, over all parts."""
        return sum(part.num_rows_in for part in self.parts)

    @property
    def rejects(self) -> Counter[str]:
        """Rejected rows by reason, over all parts."""
        return _sum(part.rejects for part in self.parts)

    @property
    def counters(self) -> Counter[str]:
        """Counters by name, over all parts."""
        return _sum(part.counters for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Bytes of every committed file."""
        tables = sum(t.bytes for part in self.parts for t in part.tables.values())
        return tables + sum(file.bytes for file in self.files)

    def num_rows(self, table: str) -> int:
        """Rows of one table, over all parts."""
        return sum(part.tables[table].num_rows for part in self.parts if table in part.tables)

    def num_rows_out(self) -> int:
        """Rows of every table but the rejects."""
        names = {name for part in self.parts for name in part.tables} - {REJECTS}
        return sum(self.num_rows(name) for name in names)


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def columns_of(schema: pa.Schema) -> list[str]:
    """Return the columns of a table with their types, in words."""
    return [f"{field.name}: {field.type}" for field in schema]


def part_path(slice_id: str) -> str:
    """Return where the part of a slice lies in its stage's folder."""
    return f"{PARTS}/{slice_id}.json"


def read_part(folder: Store, slice_id: str) -> Part | None:
    """Return the part of a slice, or None if it is not committed."""
    path = part_path(slice_id)
    return _parse(Part, folder, path, folder.read(path)) if folder.exists(path) else None


def read_parts(folder: Store) -> dict[str, Part]:
    """Return the committed parts of a stage's folder by slice id."""
    paths = [f"{PARTS}/{name}" for name in folder.names(PARTS, ".json")]
    with ThreadPoolExecutor(1 if folder.is_local else _READERS) as pool:
        parts = [
            _parse(Part, folder, path, data)
            for path, data in zip(paths, pool.map(folder.read, paths), strict=True)
        ]
    return {part.slice: part for part in parts}


def read_manifest(folder: Store, name: str = MANIFEST) -> Manifest:
    """Return the manifest of a stage's folder.

    Raises:
        StoreError: there is none.
        ManifestError: it is damaged or of another schema version.
    """
    manifest = _parse(Manifest, folder, name, folder.read(name))
    if manifest.schema_version != SCHEMA_VERSION:
        raise ManifestError(
            f"{folder.uri_of(name)}: schema version {manifest.schema_version}, this program "
            f"reads {SCHEMA_VERSION}; use the version that wrote it or a new workdir"
        )
    return manifest


def manifest_sha256(folder: Store) -> str:
    """Return the digest by which a child names this output."""
    return hashlib.sha256(folder.read(MANIFEST)).hexdigest()


def _parse(kind: type[Any], folder: Store, path: str, data: bytes) -> Any:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise ManifestError(
            f"{folder.uri_of(path)}: damaged ({error.errors()[0]['msg']}); "
            f"remove {folder.uri} to compute the stage again"
        ) from None


def _sum(counts: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total
