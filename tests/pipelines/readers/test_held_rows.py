"""Row groups that are read in the background: which are held, and that rows are the right ones."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from orchestration.errors import ManifestError
from orchestration.storage.store import Store
from pipelines.readers.held_rows import HeldRows
from pipelines.readers.prefetch import prefetch
from tests.committing import commit_tables


@pytest.fixture
def dataset(tmp_path):
    """60 rows in row groups of 4."""
    tables = [pa.table({"n": np.arange(i, i + 20), "m": np.zeros(20)}) for i in range(0, 60, 20)]
    return commit_tables(Store(tmp_path), tables, row_group_rows=4)


@pytest.fixture
def rows(dataset):
    with ThreadPoolExecutor(2) as pool:
        yield HeldRows(dataset, ["n"], pool)


def test_rows_are_given_in_the_order_asked_whether_held_or_not(rows):
    rows.hold([0, 3], first=[3])
    wanted = np.array([59, 12, 0, 33, 12])
    assert rows.take(wanted)["n"].to_pylist() == wanted.tolist()
    assert rows.take(wanted).column_names == ["n"]


def test_a_held_row_group_is_read_once_and_another_each_time(rows):
    rows.hold([0, 1])
    for _ in range(3):
        rows.take(np.arange(8))
    assert rows.num_reads == 2
    rows.hold([1, 2])  # drops 0
    rows.take(np.arange(4, 12))
    assert rows.num_reads == 3
    for _ in range(2):
        rows.take(np.arange(4))
    assert rows.num_reads == 5


def test_what_a_read_raises_reaches_the_caller_of_take(dataset):
    with ThreadPoolExecutor(1) as pool:
        rows = HeldRows(dataset, ["n"], pool)
        dataset.folder.remove(dataset.parts[1].path)
        rows.hold(range(15))
        rows.take(np.arange(20))
        with pytest.raises(ManifestError, match="missing"):
            rows.take(np.arange(25))


def test_a_row_group_that_another_thread_drops_before_it_is_read_is_read_by_its_taker(dataset):
    pool, free, waits = ThreadPoolExecutor(1), threading.Event(), threading.Event()
    rows = HeldRows(dataset, ["n"], pool)
    pool.submit(free.wait)
    rows.hold([0])
    result = rows._held[0].result

    def result_of_a_wait() -> pa.Table:
        waits.set()
        return result()

    rows._held[0].result = result_of_a_wait
    with ThreadPoolExecutor(1) as other:
        taken = other.submit(rows.take, np.arange(4))
        assert waits.wait(60)
        rows.hold([5])
        free.set()
        assert taken.result(60)["n"].to_pylist() == [0, 1, 2, 3]
    pool.shutdown()


def test_groups_of_rows_are_those_that_hold_them(rows):
    assert rows.groups_of(np.array([59, 0, 3, 4])).tolist() == [0, 1, 14]


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize(("start", "stop"), [(0, 0), (3, 4), (0, 9)])
def test_prefetched_items_come_in_order(depth, start, stop):
    with prefetch(lambda i: i * i, start, stop, depth) as items:
        found = list(items)
    assert found == [i * i for i in range(start, stop)]


def test_an_error_comes_at_its_item_and_the_items_before_it_are_given():
    def make(i: int) -> int:
        if i == 3:
            raise ZeroDivisionError(i)
        return i

    found = []
    with pytest.raises(ZeroDivisionError, match="3"), prefetch(make, 0, 9, depth=4) as items:
        for item in items:
            found.append(item)
    assert found == [0, 1, 2]


def test_the_end_of_the_block_ends_the_threads():
    before = threading.active_count()
    with prefetch(lambda i: i, 0, 9, depth=4) as items:
        assert next(items) == 0
        assert threading.active_count() > before
    assert threading.active_count() == before
