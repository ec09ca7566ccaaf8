"""The sampling order: every row once an epoch, the same for any number of workers."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.order import Order


@given(
    groups=st.lists(st.integers(1, 9), min_size=4, max_size=20),
    substreams=st.sampled_from([1, 2, 4]),
    window=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_a_substream_reads_its_rows_once_an_epoch(groups, substreams, window, seed):
    order = Order(
        groups, batch=substreams, num_substreams=substreams, shuffle_window=window, seed=seed
    )
    total = sum(groups)
    slot = np.array([0])
    rows = [int(order.rows(step, slot)[0]) for step in range(3 * total)]
    if substreams == 1:
        for epoch in range(3):
            assert sorted(rows[epoch * total : (epoch + 1) * total]) == list(range(total))
    else:  # an epoch of one substream holds some rows, each of them once
        ends = [i for i in range(1, len(rows) + 1) if len(set(rows[:i])) == i]
        assert ends[-1] >= sum(sorted(groups)[: len(groups) // substreams])


def test_all_substreams_together_read_every_row():
    order = Order([5] * 12, batch=8, num_substreams=4, shuffle_window=2, seed=3)
    seen = Counter()
    for step in range(15 * 4 // 8 * 2):
        seen.update(order.rows(step, np.arange(8)).tolist())
    assert set(seen) == set(range(60))


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_workers(num_workers):
    order = Order([7, 3, 9, 4, 8, 2], batch=12, num_substreams=4, shuffle_window=2, seed=1)
    for step in (0, 5, 40):  # crosses epochs
        expected = order.rows(step, np.arange(12))
        found = np.full(12, -1)
        for rank in range(num_workers):
            other = Order([7, 3, 9, 4, 8, 2], batch=12, num_substreams=4, shuffle_window=2, seed=1)
            slots = other.slots(rank, num_workers)
            assert len(slots) == 12 // num_workers
            found[slots] = other.rows(step, slots)
        assert np.array_equal(found, expected)


def test_a_step_does_not_depend_on_the_calls_before_it():
    one, other = (
        Order([6] * 9, batch=6, num_substreams=3, shuffle_window=2, seed=8) for _ in range(2)
    )
    for step in range(20):
        one.rows(step, np.arange(6))
    assert np.array_equal(one.rows(31, np.arange(6)), other.rows(31, np.arange(6)))


def test_epochs_and_seeds_differ():
    def first_rows(seed, step):
        order = Order([4] * 8, batch=4, num_substreams=1, shuffle_window=8, seed=seed)
        return order.rows(step, np.arange(4)).tolist()

    assert len({tuple(first_rows(seed, step)) for seed in (0, 1) for step in (0, 8)}) == 4


@pytest.mark.parametrize(
    ("groups", "batch", "substreams", "words"),
    [
        ([3] * 9, 10, 4, "not a multiple of 4"),
        ([3] * 3, 8, 4, "3 row groups"),
        ([3, 0], 2, 2, "row group 1 has no rows"),
    ],
)
def test_batches_and_row_groups_that_do_not_fit_are_refused(groups, batch, substreams, words):
    with pytest.raises(ValueError, match=words):
        Order(groups, batch=batch, num_substreams=substreams, shuffle_window=1, seed=0)


def test_a_number_of_workers_must_divide_the_substreams():
    order = Order([3] * 9, batch=4, num_substreams=4, shuffle_window=1, seed=0)
    with pytest.raises(ValueError, match="3 workers"):
        order.slots(0, 3)
