"""Parts and manifests: the two kinds of small JSON file that record what a stage has committed.

``parts/<slice>.json`` marks one slice as complete and is written after the slice's Parquet files.
``manifest.json`` marks the complete output and is written last. Readers trust nothing
else. Neither file contains times or hosts, so the same work gives the same bytes.
"""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestration.errors import ManifestError
from orchestration.fingerprint import canonical_json
from orchestration.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION: Final = 3
MANIFEST: Final = "manifest.json"
PARTS: Final = "parts"
REJECTS: Final = "rejects"
_READERS: Final = 32
"Threads that read parts from an object store, where latency dominates."


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
    "Number of rows of each row group."


class Part(_Record):
    """Everything that one slice has committed."""

    slice: str
    num_rows_in: int
    tables: dict[str, TablePart]
    rejects: dict[str, int]
    "Number of rejected rows by reason."
    counters: dict[str, int]


class Parent(_Record):
    """One input of a stage, identified by the digest of its manifest."""

    stage: str
    fingerprint: str
    manifest_sha256: str


class Manifest(_Record):
    """The complete output of a stage."""

    schema_version: int
    stage: str
    fingerprint: str
    params: dict[str, Any]
    parents: dict[str, list[Parent]]
    parts: list[Part]
    columns: dict[str, list[str]]
    "Columns of each table with their types; the same in every part."
    files: list[File]
    rounds: list[list[str]]
    "Rejection reasons of each round of retries, in order."
    numbers: dict[str, float]
    "Results by name, such as a loss or a vocabulary size."

    @property
    def num_rows_in(self) -> int:
        """Number of input rows, over all parts."""
        return sum(part.num_rows_in for part in self.parts)

    @property
    def rejects(self) -> Counter[str]:
        """Number of rejected rows by reason, over all parts."""
        return _sum(part.rejects for part in self.parts)

    @property
    def counters(self) -> Counter[str]:
        """Sum of each counter, over all parts."""
        return _sum(part.counters for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Total size of the committed files in bytes."""
        tables = sum(t.bytes for part in self.parts for t in part.tables.values())
        return tables + sum(file.bytes for file in self.files)

    def num_rows(self, table: str) -> int:
        """Return the number of rows of one table, over all parts."""
        return sum(part.tables[table].num_rows for part in self.parts if table in part.tables)

    def num_rows_out(self) -> int:
        """Return the number of rows of all tables except those whose names end in ``rejects``."""
        names = {name for part in self.parts for name in part.tables}
        return sum(self.num_rows(name) for name in names if not name.endswith(REJECTS))


def columns_of(schema: "pa.Schema") -> list[str]:
    """Return the columns of a table with their types, each as ``name: type``."""
    return [f"{field.name}: {field.type}" for field in schema]


def file_of(folder: Store, path: str) -> File:
    """Return the record of a file, whose digest is computed here."""
    size, sha256 = folder.size_and_sha256(path)
    return File(path=path, bytes=size, sha256=sha256)


def part_path(slice_id: str) -> str:
    """Return the path of a slice's part within its stage's folder."""
    return f"{PARTS}/{slice_id}.json"


def read_part(folder: Store, slice_id: str) -> Part | None:
    """Return the part of a slice, or None if it is not committed.

    Raises:
        ManifestError: the part is damaged.
    """
    path = part_path(slice_id)
    return _parse(Part, folder, path, folder.read(path)) if folder.exists(path) else None


def read_parts(folder: Store) -> dict[str, Part]:
    """Return the committed parts of a stage's folder by slice id.

    Raises:
        ManifestError: a part is damaged.
    """
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
        StoreError: the stage has no manifest.
        ManifestError: the manifest is damaged or has another schema version.
    """
    manifest = _parse(Manifest, folder, name, folder.read(name))
    if manifest.schema_version != SCHEMA_VERSION:
        raise ManifestError(
            f"{folder.uri_of(name)}: schema version {manifest.schema_version}, this program "
            f"reads {SCHEMA_VERSION}; use the version that wrote it or a new workdir"
        )
    return manifest


def manifest_sha256(folder: Store) -> str:
    """Return the digest by which the manifest of a dependent stage identifies this output."""
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
