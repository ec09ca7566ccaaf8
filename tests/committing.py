"""Committing tables without running a stage."""

from collections.abc import Iterable

import pyarrow as pa

from orchestration.dataset import Dataset
from orchestration.manifest import MANIFEST, SCHEMA_VERSION, File, Manifest
from orchestration.slices import commit_slice
from orchestration.stage import Output, Slice
from orchestration.store import Store


def commit_tables(
    folder: Store,
    tables: Iterable[pa.Table],
    *,
    row_group_rows: int,
    name: str = "data",
    files: Iterable[str] = (),
) -> Dataset:
    """Commit one part for each table; return the dataset."""
    parts = [
        commit_slice(
            folder, Slice(f"{i:06d}", {}), Output(table.num_rows, {name: table}), row_group_rows
        )
        for i, table in enumerate(tables)
    ]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        stage="s",
        fingerprint="f",
        params={},
        parents={},
        parts=parts,
        files=[File(path=path, bytes=0, sha256="") for path in files],
        numbers={},
    )
    folder.write_bytes(MANIFEST, manifest.to_bytes())
    return Dataset.open(folder, name)
