"""The store's atomic writes, and datasets read back by row range."""

import io
import json
import pickle
import shlex
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.dataset import Dataset
from orchestration.errors import ManifestError, StoreError
from orchestration.integrity import damages, repair, verify_inputs
from orchestration.manifest import file_of, read_manifest, read_part
from orchestration.slice_commit import commit_slice
from orchestration.slices import Output, Slice, row_slices
from orchestration.storage.files import StorageParams
from orchestration.storage.local_files import LocalFiles
from orchestration.storage.store import Store
from tests.committing import commit_tables
from tests.s3 import BUCKET


def commit(folder: Store, sizes: list[int], row_group_rows: int = 3) -> Dataset:
    starts = np.cumsum([0, *sizes])
    tables = [
        pa.table({"n": np.arange(start, start + size)})
        for start, size in zip(starts, sizes, strict=False)
    ]
    return commit_tables(folder, tables, row_group_rows=row_group_rows)


def test_a_failed_write_leaves_no_file(store):
    with pytest.raises(RuntimeError), store.write("a/b") as file:
        file.write(b"half")
        raise RuntimeError
    assert not store.exists("a/b") and store.names("a", "") == []
    if store.is_local:
        assert list(Path(store.native_path("a")).iterdir()) == []


def test_an_unreadable_file_is_named(store):
    for read in (store.read, store.open, store.size_and_sha256):
        with pytest.raises(StoreError, match="a/nothing"):
            read("a/nothing")


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://bucket", "s3://"])
def test_an_address_that_cannot_hold_a_workdir_is_refused(root):
    with pytest.raises(StoreError, match=root):
        Store(root)


def test_a_store_implements_its_interface(store):
    """The fixture gives a local store and one on an S3 server."""
    assert store.names("a", ".json") == [] and not store.exists("a") and store.size("a/x") is None
    store.write_bytes("a/x.json", b"12")
    store.write_bytes("a/b/y.json", b"345")
    with store.write("a/z.bin") as file:
        file.write(b"6")
        file.write(b"78")
    assert (file.bytes, file.sha256) == store.size_and_sha256("a/z.bin")
    assert store.names("a", ".json") == ["x.json"] and store.folders("a") == ["b"]
    assert list(store.walk()) == [("a/b/y.json", 3), ("a/x.json", 2), ("a/z.bin", 3)]
    assert store.sub("a").read("b/y.json") == b"345"
    assert store.open("a/z.bin").read() == b"678"
    assert store.fetch("a/z.bin").read_bytes() == b"678"
    assert pickle.loads(pickle.dumps(store)).read("a/x.json") == b"12"
    store.remove("a/b")
    assert store.folders("a") == [] and store.exists("a/x.json")
    store.remove("a")
    assert not store.exists("a/x.json")
    store.remove("a")


def test_of_two_conditional_writers_one_succeeds(store):
    first = store.write_if("lock", b"1", None)
    assert first is not None
    assert store.write_if("lock", b"2", None) is None
    second = store.write_if("lock", b"3", first)
    assert second is not None and store.write_if("lock", b"4", first) is None
    assert store.read_version("lock") == (b"3", second)
    store.remove("lock")
    assert store.write_if("lock", b"5", second) is None
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.write_if("race", str(n).encode(), None), range(8)))
    assert sum(version is not None for version in won) == 1


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    start=st.integers(0, 60),
    length=st.integers(0, 60),
)
def test_any_range_of_rows_reads_as_from_one_table(sizes, start, length, tmp_path_factory):
    dataset = commit(Store(tmp_path_factory.mktemp("d")), sizes)
    expected = list(range(sum(sizes)))[start : start + length]
    assert dataset.read(start, start + length)["n"].to_pylist() == expected


def test_row_groups_know_their_first_row_number(tmp_path):
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


def test_a_damaged_part_is_named(tmp_path):
    dataset = commit(Store(tmp_path), [4])
    part = tmp_path / dataset.parts[0].path
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"000000-.*\.parquet"):
        dataset.read()
    part.unlink()
    with pytest.raises(ManifestError, match="missing"):
        dataset.read()


def test_a_part_with_other_columns_or_rows_is_named(tmp_path):
    dataset = commit(Store(tmp_path), [4, 4])
    part = tmp_path / dataset.parts[1].path
    for table, words in (
        (pa.table({"m": np.arange(4)}), "columns differ.*m: int64, n: int64"),
        (pa.table({"n": np.arange(4, dtype=np.int32)}), "n: int32, n: int64"),
        (pa.table({"n": np.arange(3)}), "3 rows, its manifest says 4"),
    ):
        pq.write_table(table, part)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        manifest["parts"][1]["tables"]["data"]["bytes"] = part.stat().st_size
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ManifestError, match=words) as error:
            Dataset.open(dataset.folder).read()
        assert part.name in str(error.value) and "--repair" in str(error.value)
        assert Dataset.open(dataset.folder).read(0, 4).num_rows == 4  # the other part is readable


def test_a_damaged_file_is_found_by_its_digest_and_removed(store):
    path = commit(store, [4, 4, 4]).parts[1].path
    assert list(damages(store)) == []
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.write_bytes(path, bytes(data))
    with pytest.raises(ManifestError, match=f"{path}: content differs"):
        verify_inputs({"numbers": store})
    (damage,) = repair(store)
    assert damage.slice == "000001"
    assert not store.exists("manifest.json")
    assert store.names("parts", ".json") == ["000000.json", "000002.json"]
    assert not store.exists(path) and len(store.names("data", ".parquet")) == 2


def test_a_damaged_or_foreign_manifest_is_refused(tmp_path):
    commit(Store(tmp_path), [1])
    path = tmp_path / "manifest.json"
    good = path.read_text()
    path.write_text(good.replace('"schema_version":3', '"schema_version":99'))
    with pytest.raises(ManifestError, match="99"):
        read_manifest(Store(tmp_path))
    path.write_text(good[: len(good) // 2])
    with pytest.raises(ManifestError, match="damaged"):
        read_manifest(Store(tmp_path))


def test_the_same_slice_gives_the_same_bytes(tmp_path):
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    commit(first, [7, 2])
    commit(second, [7, 2])
    paths = [path for path, _ in first.walk()]
    assert [p.partition("/")[0] for p in paths] == [
        "data",
        "data",
        "manifest.json",
        "parts",
        "parts",
    ]
    for path in paths:
        assert first.read(path) == second.read(path)


def test_two_attempts_at_a_slice_overwrite_nothing_of_each_other(store):
    """A download has other rows each time; the attempt that commits first counts."""
    outputs = [
        Output(2, {"data": pa.table({"n": [0, 1]})}),
        Output(2, {"data": pa.table({"n": [9]})}),
    ]
    parts = [commit_slice(store, Slice("000000", {}), output, 8) for output in outputs]
    assert parts[0] == parts[1] == read_part(store, "000000")
    path = parts[0].tables["data"].path
    assert pq.read_table(store.open(path))["n"].to_pylist() == [0, 1]
    assert len(store.names("data", ".parquet")) == 2
    assert file_of(store, path).sha256 == parts[0].tables["data"].sha256


def corrupt_footer(data: bytes) -> bytes:
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[:start] + b"\xff" * 32 + data[start + 32 :]


def corrupt_page(data: bytes) -> bytes:
    return data[:8] + bytes(byte ^ 255 for byte in data[8:40]) + data[40:]


@pytest.mark.parametrize("corrupt", [corrupt_footer, corrupt_page])
def test_a_corrupt_part_of_the_right_size_is_damage(tmp_path, corrupt):
    dataset = commit(Store(tmp_path), [400], row_group_rows=400)
    part = tmp_path / dataset.parts[0].path
    part.write_bytes(corrupt(part.read_bytes()))
    with pytest.raises(ManifestError, match=r"not readable as Parquet.*--repair"):
        dataset.read()


@pytest.mark.parametrize("lasts", [False, True])
@pytest.mark.parametrize("num_reads", [0, 1])
def test_a_store_that_fails_while_a_part_is_read_is_not_called_damage(
    tmp_path, monkeypatch, num_reads, lasts
):
    """The first read gets the footer, the second one a row group."""

    class Failing(io.FileIO):
        left = num_reads

        def read(self, size: int = -1) -> bytes:
            Failing.left -= 1
            if Failing.left == -1 or (lasts and Failing.left < 0):
                raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")
            return super().read(size)

    dataset = commit(Store(tmp_path), [400], row_group_rows=400)
    monkeypatch.setattr(
        LocalFiles, "open", lambda self, path: pa.PythonFile(Failing(path), mode="r")
    )
    with pytest.raises(StoreError, match="NETWORK_CONNECTION"):
        dataset.read()
    monkeypatch.undo()
    assert dataset.read().num_rows == 400


def test_a_committed_file_is_found_by_its_name(store):
    dataset = commit_tables(
        store,
        [],
        row_group_rows=1,
        files={path: path.encode() for path in ("x/step_1/net.json", "x/a.bin", "y/a.bin")},
    )
    assert dataset.fetch("net.json").read_text() == "x/step_1/net.json"
    assert sorted(p.name for p in dataset.fetch_folder("net.json").iterdir()) == ["net.json"]
    with pytest.raises(ManifestError, match=r"2 files named 'a\.bin'"):
        dataset.fetch("a.bin")
    with pytest.raises(ManifestError, match="0 files named 'json'"):
        dataset.fetch("json")
    store.write_bytes("x/step_1/net.json", b"")
    with pytest.raises(ManifestError, match=r"net\.json: 0 bytes, its manifest says 17"):
        dataset.fetch("net.json")


@pytest.mark.parametrize(
    "root",
    [
        *("", " ", "s3://bucket", "s3://", "S3://b/x", "s3:/b/x", "gs://b/x", "file:///x"),
        *("file:x", "s3://key:secret@b/x", "s3://b c/x", "a\0b"),
    ],
)
def test_what_is_no_workdir_is_refused(root):
    with pytest.raises(StoreError, match=r"s3://bucket/prefix"):
        Store(root)


def test_a_workdir_may_begin_with_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/runs/").uri == f"{tmp_path}/runs"
    with pytest.raises(StoreError, match="no home is known for ~nobody_of_this_name"):
        Store("~nobody_of_this_name/x")


def test_the_root_of_the_file_system_is_not_the_current_folder():
    assert Store("/").uri == "/"


@pytest.mark.parametrize(
    "prefix", ["a#1", "a?x=1", "a%20b", "p%2F..", "a//b", "a/../b", "./a", "a\\b", "a\nb"]
)
def test_a_prefix_that_programs_read_differently_is_refused(prefix):
    with pytest.raises(StoreError, match="choose a prefix without it"):
        Store(f"s3://bucket/{prefix}")


def test_other_characters_may_stand_in_a_prefix(s3_endpoint):
    root = f"s3://{BUCKET}/{uuid.uuid4().hex}/a b é+c&d=e,f;g:h$i@j'(k)!l*m~n/..x/[y]"
    store = Store(root, StorageParams(endpoint_url=s3_endpoint))
    store.write_bytes("f/g", b"1")
    assert store.read("f/g") == store.open("f/g").read() == b"1"
    assert list(store.walk()) == [("f/g", 1)]
    assert store.file_system().get_file_info(store.native_path("f/g")).size == 1
    store.remove("f")
    assert list(store.walk()) == []


def test_the_options_that_name_a_folder_say_how_its_store_is_reached():
    params = StorageParams(endpoint_url="http://localhost:9000/", region="eu-west-1")
    options = Store("s3://bucket/two words", params).as_option("--workdir")
    assert shlex.split(options) == [
        *("--workdir", "s3://bucket/two words", "--endpoint-url", "http://localhost:9000"),
        *("--region", "eu-west-1"),
    ]
    assert Store("/data/run").as_option("--in") == "--in /data/run"
