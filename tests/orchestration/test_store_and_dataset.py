"""The store's atomic writes, and datasets read back by row range."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.dataset import Dataset
from orchestration.errors import ManifestError, StoreError
from orchestration.manifest import read_manifest
from orchestration.stage import row_slices
from orchestration.store import Store
from tests.committing import commit_tables


def commit(folder: Store, sizes: list[int], row_group_rows: int = 3) -> Dataset:
    starts = np.cumsum([0, *sizes])
    tables = [
        pa.table({"n": np.arange(start, start + size)})
        for start, size in zip(starts, sizes, strict=False)
    ]
    return commit_tables(folder, tables, row_group_rows=row_group_rows)


def test_a_failed_write_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.write("a/b") as file:
        file.write(b"half")
        raise RuntimeError
    assert not store.exists("a/b")
    assert list((tmp_path / "a").iterdir()) == []


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(StoreError, match="nothing"):
        Store(tmp_path).read("nothing")


def test_a_remote_workdir_is_refused_in_this_version():
    with pytest.raises(StoreError, match="s3://bucket"):
        Store("s3://bucket/x")


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    start=st.integers(0, 60),
    length=st.integers(0, 60),
)
def test_any_range_of_rows_is_read_as_from_one_table(sizes, start, length, tmp_path_factory):
    dataset = commit(Store(tmp_path_factory.mktemp("d")), sizes)
    expected = list(range(sum(sizes)))[start : start + length]
    assert dataset.read(start, start + length)["n"].to_pylist() == expected


def test_row_groups_number_the_rows(tmp_path):
    groups = commit(Store(tmp_path), [4, 0, 5]).row_groups()
    assert [(g.first_row, g.num_rows) for g in groups if g.num_rows] == [
        (0, 3),
        (3, 1),
        (4, 3),
        (7, 2),
    ]


def test_slices_cover_each_row_once(tmp_path):
    dataset = commit(Store(tmp_path), [4, 5])
    ranges = [(s.payload["start"], s.payload["stop"]) for s in row_slices(dataset, 4)]
    assert ranges == [(0, 4), (4, 8), (8, 9)]


def test_a_damaged_part_names_itself(tmp_path):
    dataset = commit(Store(tmp_path), [4])
    part = tmp_path / "data" / "000000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"000000\.parquet"):
        dataset.read()
    part.unlink()
    with pytest.raises(ManifestError, match="missing"):
        dataset.read()


def test_a_damaged_or_foreign_manifest_is_refused(tmp_path):
    commit(Store(tmp_path), [1])
    path = tmp_path / "manifest.json"
    good = path.read_text()
    path.write_text(good.replace('"schema_version":1', '"schema_version":99'))
    with pytest.raises(ManifestError, match="99"):
        read_manifest(Store(tmp_path))
    path.write_text(good[: len(good) // 2])
    with pytest.raises(ManifestError, match="damaged"):
        read_manifest(Store(tmp_path))


def test_the_same_slice_gives_the_same_bytes(tmp_path):
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    commit(first, [7, 2])
    commit(second, [7, 2])
    for path in ("data/000000.parquet", "parts/000001.json", "manifest.json"):
        assert first.read(path) == second.read(path)


def test_a_committed_file_is_found_by_its_name(tmp_path):
    dataset = commit_tables(
        Store(tmp_path), [], row_group_rows=1, files=["x/step_1/net.json", "x/a.bin", "y/a.bin"]
    )
    assert dataset.file("net.json") == tmp_path / "x/step_1/net.json"
    with pytest.raises(ManifestError, match=r"2 files named 'a\.bin'"):
        dataset.file("a.bin")
    with pytest.raises(ManifestError, match="0 files named 'json'"):
        dataset.file("json")
