"""The tables of an output that has no slices: without them, its readers would find no table."""

from collections.abc import Mapping

import pyarrow as pa

from orchestration.manifest import Part
from orchestration.slice_commit import commit_slice
from orchestration.slices import Output, Slice
from orchestration.storage.store import Store


def commit_empty(folder: Store, schemas: Mapping[str, pa.Schema]) -> Part:
    """Commit one part, named ``empty``, whose tables have these schemas and no rows."""
    tables = {name: schema.empty_table() for name, schema in schemas.items()}
    return commit_slice(folder, Slice("empty", {}), Output(0, tables), 1)
