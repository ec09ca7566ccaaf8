"""Tables between rounds: a range of keys is read whole, whatever the type and size of the keys."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.storage.store import Store
from pipelines.curate.exchange import Exchange, key_range, mixed, written


def exchange(folder, columns: list[dict[str, np.ndarray]], row_group_size: int) -> Exchange:
    paths = []
    for i, one in enumerate(columns):
        (table,) = written("t", one, "key").values()
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=row_group_size)
        paths.append(f"{i}.parquet")
    return Exchange(Store(folder), tuple(paths), "key", sum(len(one["key"]) for one in columns))


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
@pytest.mark.parametrize("total", [1, 2, 8])
def test_ranges_together_give_every_row_once(tmp_path, dtype, total):
    rng = np.random.default_rng(0)
    keys = [rng.integers(0, np.iinfo(dtype).max, n, dtype, endpoint=True) for n in (500, 1)]
    keys[0][:100] = keys[0][0]
    ends = np.array([0, np.iinfo(dtype).max], dtype)
    keys.append(np.concatenate([ends, ends]))
    rows = [{"key": k, "bytes": k.view(np.uint8).reshape(-1, 8)} for k in keys]
    table = exchange(tmp_path, rows, 7)
    found = [
        some for i in range(total) for some in table.read(*key_range(i, total), columns=["bytes"])
    ]
    read = pa.concat_tables(found)
    assert sorted(read["key"].to_pylist()) == sorted(np.concatenate(keys).tolist())
    for key, data in zip(read["key"].to_pylist(), read["bytes"].to_pylist(), strict=True):
        assert int.from_bytes(data, "little") == key


@given(
    keys=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    first=st.integers(0, 60),
    length=st.integers(0, 60),
)
def test_a_range_gives_exactly_its_rows(tmp_path_factory, keys, first, length):
    folder = tmp_path_factory.mktemp("tables")
    rows = {"key": np.array(keys, np.int64), "row": np.arange(len(keys))}
    table = exchange(folder, [rows], 4)
    found, row = table.arrays(first, first + length, columns={"key": np.int64, "row": np.int64})
    expected = sorted((k, i) for i, k in enumerate(keys) if first <= k <= first + length)
    assert list(zip(found.tolist(), row.tolist(), strict=True)) == expected


def test_mixing_is_a_bijection_that_spreads_small_numbers():
    keys = mixed(np.arange(100_000, dtype=np.uint64))
    assert len(np.unique(keys)) == 100_000
    counts = np.histogram(keys.astype(float), 16, (0, 2.0**64))[0]
    assert counts.min() > 5900 and counts.max() < 6600
