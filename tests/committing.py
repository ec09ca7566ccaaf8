"""Committing tables without running a stage."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.dataset import Dataset
from orchestration.manifest import MANIFEST, SCHEMA_VERSION, File, Manifest, columns_of
from orchestration.slices import commit_slice
from orchestration.stage import Output, Slice
from orchestration.store import Store


def commit_tables(
    folder: Store,
    tables: Sequence[pa.Table],
    *,
    row_group_rows: int,
    name: str = "data",
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> Dataset:
    """Commit one part for each table; return the dataset."""
    for path, content in files.items():
        folder.write_bytes(path, content)
    parts = [
        commit_slice(
            folder, Slice(f"{i:06d}", {}), Output(table.num_rows, {name: table}), row_group_rows
        )
        for i, table in enumerate(tables)
    ]
    if tables:
        schema = pq.read_schema(folder.open(parts[0].tables[name].path))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        stage="s",
        fingerprint="f",
        params={},
        parents={},
        parts=parts,
        columns={name: columns_of(schema)} if tables else {},
        files=[File(path=path, bytes=len(c), sha256="") for path, c in files.items()],
        rounds=[],
        numbers={},
    )
    folder.write_bytes(MANIFEST, manifest.to_bytes())
    return Dataset.open(folder, name)
