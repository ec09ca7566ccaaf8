"""Committing tables without running a stage."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.dataset import Dataset
from orchestration.manifest import MANIFEST, SCHEMA_VERSION, Manifest, Part, columns_of, file_of
from orchestration.slice_commit import commit_slice
from orchestration.slices import Output, Slice
from orchestration.storage.store import Store


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
    return _committed(folder, parts, files, {}, {}, name)


def commit_outputs(
    folder: Store,
    outputs: Sequence[Output],
    *,
    row_group_rows: int = 16,
    params: Mapping[str, Any] = MappingProxyType({}),
    numbers: Mapping[str, float] = MappingProxyType({}),
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> Dataset:
    """Commit one part for each output of a slice; return the dataset named ``data``."""
    for path, content in files.items():
        folder.write_bytes(path, content)
    parts = [
        commit_slice(folder, Slice(f"{i:06d}", {}), output, row_group_rows)
        for i, output in enumerate(outputs)
    ]
    return _committed(folder, parts, files, params, numbers, "data")


def _committed(
    folder: Store,
    parts: Sequence[Part],
    files: Mapping[str, bytes],
    params: Mapping[str, Any],
    numbers: Mapping[str, float],
    name: str,
) -> Dataset:
    paths = {key: table.path for part in reversed(parts) for key, table in part.tables.items()}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        stage="s",
        fingerprint="f",
        params=dict(params),
        parents={},
        parts=list(parts),
        columns={key: columns_of(pq.read_schema(folder.open(path))) for key, path in paths.items()},
        files=[file_of(folder, path) for path in files],
        rounds=[],
        numbers=dict(numbers),
    )
    folder.write_bytes(MANIFEST, manifest.to_bytes())
    return Dataset.open(folder, name)
