"""A row group that is longer than a slice should be is indexed in pieces."""

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.storage.store import Store
from orchestration.suspects import joined
from pipelines.ingest import index
from pipelines.ingest.sources.own_lists import OwnParquet


def test_a_long_row_group_is_indexed_in_pieces(tmp_path):
    urls = [f"http://a.org/{i}" if i % 7 else None for i in range(100)]
    pq.write_table(pa.table({"url": urls, "caption": ["a dog"] * 100}), tmp_path / "p.parquet")
    params = OwnParquet(format="parquet_pairs", list=str(tmp_path / "p.parquet"), slice_lines=30)
    (slice_,) = params.slices()
    pieces = list(index.index_slice(params, "own", Store(tmp_path), slice_))
    assert [piece.num_rows_in for piece in pieces] == [30, 30, 30, 10]
    whole = params.model_copy(update={"slice_lines": 100})
    (expected,) = index.index_slice(whole, "own", Store(tmp_path), slice_)
    assert joined(pieces) == expected
