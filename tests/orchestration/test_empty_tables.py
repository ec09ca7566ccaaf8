"""An output without slices still has its tables, so the stages after it go on."""

import pyarrow as pa
import pytest

from dataprep.schemas import DOCUMENTS, IMAGES, INDEX, REJECTS
from orchestration.empty_tables import commit_empty
from orchestration.manifest import read_part
from orchestration.storage.store import Store


@pytest.mark.parametrize("schema", [INDEX, IMAGES, DOCUMENTS])
def test_a_source_that_gives_nothing_has_readable_tables(tmp_path, schema):
    import pyarrow.parquet as pq

    store = Store(tmp_path)
    part = commit_empty(store, {"data": schema, "rejects": REJECTS})
    assert read_part(store, part.slice) == part
    assert part.tables["data"].row_groups == () and part.rejects == {}
    table = pq.read_table(store.open(part.tables["data"].path))
    assert isinstance(table, pa.Table) and table.schema.equals(schema) and not table.num_rows
