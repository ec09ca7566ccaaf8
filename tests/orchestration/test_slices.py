"""Slices of whole row groups, and outputs that a slice yields in pieces.

pyarrow, which reads files of any writer, says what the files hold.
"""

import itertools
import tracemalloc
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration import Output, Slice
from orchestration.manifest import read_part
from orchestration.slice_commit import commit_slice
from orchestration.slices import group_slices, outputs_of, read_groups, read_slice, runs
from orchestration.storage.store import Store
from orchestration.suspects import Around
from tests.committing import commit_tables

SLICE = Slice("000000", {})


@pytest.mark.parametrize(
    ("sizes", "largest", "most", "expected"),
    [
        ([], 10, None, []),
        ([3], 10, None, [[0]]),
        ([5, 5], 10, None, [[0, 1]]),  # exactly the largest sum
        ([5, 6], 10, None, [[0], [1]]),
        ([11, 1, 1], 10, None, [[0], [1, 2]]),  # a larger item is alone
        ([1, 11, 1], 10, None, [[0], [1], [2]]),
        ([0, 0, 0], 10, None, [[0, 1, 2]]),
        ([1, 1, 1, 1, 1], 10, 2, [[0, 1], [2, 3], [4]]),
        ([9, 1, 1], 10, 1, [[0], [1], [2]]),
    ],
)
def test_runs_hold_as_many_items_as_fit(sizes, largest, most, expected):
    assert [list(run) for run in runs(sizes, largest, most)] == expected


def texts(sizes: list[int]) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"text": pa.array([rng.bytes(size // 2).hex() for size in sizes], pa.string())})


def test_slices_of_row_groups_are_bounded_by_bytes_and_hold_each_row_once(tmp_path):
    tables = [texts([1000] * 40), texts([]), texts([10] * 7 + [50_000] + [10] * 12)]
    dataset = commit_tables(Store(tmp_path), tables, row_group_rows=5)
    sizes = dataset.column_bytes("text")
    assert len(sizes) == len(dataset.row_groups()) == 12
    for largest in (1, 6000, 11_000, 10**9):
        slices = group_slices(dataset, "text", largest)
        bounds = [(s.payload["start"], s.payload["stop"]) for s in slices]
        assert bounds[0][0] == 0 and bounds[-1][1] == dataset.num_rows
        assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
        for slice_ in slices:
            pieces = list(read_groups(dataset, slice_, ["text"]))
            num_bytes = sum(len(text) for t in pieces for text in t["text"].to_pylist())
            assert num_bytes <= largest or len(pieces) == 1
            assert pa.concat_tables(pieces) == read_slice(dataset, slice_, ["text"])
    assert len(group_slices(dataset, "text", 1)) == 12
    assert len(group_slices(dataset, "text", 10**9)) == 1


@pytest.mark.parametrize(("start", "stop"), [(0, 60), (3, 4), (4, 11), (59, 60), (10, 10)])
def test_row_groups_of_a_slice_begin_and_end_with_it(tmp_path, start, stop):
    table = pa.table({"n": range(60)})
    dataset = commit_tables(Store(tmp_path), [table[:13], table[13:]], row_group_rows=5)
    slice_ = Slice("0", {"start": start, "stop": stop})
    pieces = [piece["n"].to_pylist() for piece in read_groups(dataset, slice_, ["n"])]
    assert [n for piece in pieces for n in piece] == list(range(start, stop))
    assert all(0 < len(piece) <= 5 for piece in pieces)


def pieces_of(sizes: list[int], rejects: list[int]) -> Iterator[Output]:
    first = 0
    for size, bad in zip(sizes, rejects, strict=True):
        rows = pa.table({"n": pa.array(range(first, first + size), pa.int64())})
        reasons = pa.table({"reason": pa.array([f"r{i % 2}" for i in range(bad)], pa.string())})
        yield Output(size + bad, {"data": rows, "rejects": reasons}, {"seen": size, "none": 0})
        first += size


@pytest.mark.parametrize(
    ("sizes", "rejects", "groups"),
    [
        ([0], [0], ()),
        ([0, 3], [0, 0], (3,)),  # an empty piece makes no row group
        ([3, 0, 5], [0, 3, 0], (3, 4, 1)),
        ([8, 4], [1, 1], (4, 4, 4)),
        ([0, 0], [0, 2], ()),
    ],
)
def test_pieces_of_an_output_become_one_part(tmp_path, sizes, rejects, groups):
    store = Store(tmp_path)
    part = commit_slice(store, SLICE, pieces_of(sizes, rejects), 4)
    assert read_part(store, "000000") == part
    assert part.num_rows_in == sum(sizes) + sum(rejects)
    assert part.counters == {"seen": sum(sizes), "none": 0}
    assert sum(part.rejects.values()) == sum(rejects)
    data = part.tables["data"]
    assert data.row_groups == groups
    file = pq.ParquetFile(tmp_path / data.path)
    assert file.read()["n"].to_pylist() == list(range(sum(sizes)))
    found = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert found == list(groups or [0])
    assert (tmp_path / data.path).stat().st_size == data.bytes


def test_an_output_in_one_piece_has_the_bytes_that_pyarrow_writes_at_once(tmp_path):
    table = pa.table({"n": range(1000), "t": [str(i) for i in range(1000)]})
    part = commit_slice(Store(tmp_path / "a"), SLICE, Output(1000, {"data": table}), 64)
    pq.write_table(table, tmp_path / "b", row_group_size=64, compression="zstd")
    written = (tmp_path / "a" / part.tables["data"].path).read_bytes()
    assert written == (tmp_path / "b").read_bytes()


def test_pieces_do_not_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestration.slice_commit._IN_MEMORY_BYTES", 1 << 20)
    rng = np.random.default_rng(0)

    def pieces() -> Iterator[Output]:
        for _ in range(40):
            yield Output(1, {"data": pa.table({"text": [rng.bytes(1 << 19).hex()]})})

    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    tracemalloc.start()
    part = commit_slice(Store(tmp_path), SLICE, pieces(), 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part.tables["data"].num_rows == 40
    assert peak < 8 << 20 and pa.total_allocated_bytes() - before < 8 << 20
    assert pool.backend_name


def test_pieces_of_a_slice_with_rows_to_leave_out_are_joined():
    def process(slice_: Slice) -> Iterator[Output]:
        for row in range(slice_.payload["start"], slice_.payload["stop"]):
            yield Output(1, {"data": pa.table({"n": [row]})}, {"seen": 1})

    def quarantine(slice_: Slice, detail: str) -> Output:
        return Output(1, {"rejects": pa.table({"n": [slice_.payload["start"]]})})

    around = Around(partial(lambda: process), quarantine, [2], "ended")()
    (output,) = outputs_of(around(Slice("0", {"start": 0, "stop": 5})))
    assert output.tables["data"]["n"].to_pylist() == [0, 1, 3, 4]
    assert output.num_rows_in == 5 and output.counters == {"seen": 4}
