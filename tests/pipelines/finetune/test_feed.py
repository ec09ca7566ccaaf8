"""The feed: every used sample once an epoch, and a batch that depends on the step alone."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.storage.store import Store
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.feed import TaskFeed
from tests.committing import commit_tables


def build(rows, numbers, step, slots, texts):
    """A batch that tells which sample stands in which slot; the rows must be the right ones."""
    assert rows["n"].to_pylist() == numbers.tolist()
    return TaskBatch(
        numbers, text_counts=torch.from_numpy(slots), targets=torch.from_numpy(texts + 0 * step)
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Makes a split of so many rows; it is kept."""
    made = {}

    def of(num_rows, group=8, part=None):
        key = num_rows, group, part
        if key not in made:
            size = part or num_rows
            tables = [
                pa.table({"n": np.arange(i, min(i + size, num_rows))})
                for i in range(0, num_rows, size)
            ]
            folder = Store(tmp_path_factory.mktemp("split"))
            made[key] = commit_tables(folder, tables, row_group_rows=group)
        return made[key]

    return of


def feed_of(dataset, samples, rank=0, num_workers=1, **changes):
    given_ = {"batch_size": 8, "micro_batch": 3, "num_substreams": 4, "shuffle_window": 4} | changes
    samples = np.asarray(samples, np.int64)
    place = {"rank": rank, "num_workers": num_workers}
    return TaskFeed(dataset, ["n"], build, samples, seed=5, **place, **given_)


def read(feed, step):
    """The sample of each slot of this worker."""
    found = {}
    for batch in feed.step(step):
        slots, texts = batch.text_counts.tolist(), batch.targets.tolist()
        found |= dict(zip(slots, zip(batch.rows.tolist(), texts, strict=True), strict=True))
    return found


def sequence(feed, substream, number):
    """The first samples of a substream."""
    found = []
    for step in range(-(-number // feed.order.per_substream)):
        slots = read(feed, step)
        first = substream * feed.order.per_substream
        found += [slots[first + i] for i in range(feed.order.per_substream)]
    return found[:number]


SHAPES = {
    "as many rows as substreams": (4, 8, None),
    "fewer rows than runs": (11, 8, None),
    "one row group": (50, 64, None),
    "several row groups": (100, 8, None),
    "several parts": (90, 8, 37),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("which", ["every row", "some rows", "several samples"])
def test_each_sample_of_used_rows_comes_once_in_an_epoch_and_others_never(split, shape, which):
    num_rows = SHAPES[shape][0]
    rng = np.random.default_rng(3)
    samples = np.ones(num_rows, int) if which == "every row" else rng.integers(0, 4, num_rows)
    if which == "some rows":
        samples = np.minimum(samples, 1)
    samples[:4] = np.maximum(samples[:4], 1)
    feed = feed_of(split(*SHAPES[shape]), samples)
    expected = {(row, text) for row in range(num_rows) for text in range(samples[row])}
    assert feed.order.samples_per_epoch == len(expected)
    lengths = feed.order._dealing.lengths
    first, second = Counter(), Counter()
    for substream, length in enumerate(lengths.tolist()):
        found = sequence(feed, substream, 2 * length)
        first.update(found[:length])
        second.update(found[length:])
    assert set(first) == set(second) == expected
    assert {*first.values(), *second.values()} == {1}
    assert lengths.max() - lengths.min() <= max(8, samples.max())


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(4, 60),
    num_workers=st.sampled_from([1, 2, 4]),
    micro_batch=st.integers(1, 20),
    step=st.integers(0, 200),
    data=st.data(),
)
def test_the_global_batch_is_the_same_for_any_workers_and_micro_batches(
    split, num_rows, num_workers, micro_batch, step, data
):
    counts = st.lists(st.integers(0, 3), min_size=num_rows, max_size=num_rows)
    samples = np.array(data.draw(counts))
    samples[[0, 1, num_rows // 2, num_rows - 1]] = 1
    dataset = split(num_rows)
    expected = read(feed_of(dataset, samples), step)
    found = {}
    for rank in range(num_workers):
        feed = feed_of(dataset, samples, rank, num_workers, micro_batch=micro_batch)
        batches = feed.step(step)
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= micro_batch and sum(sizes) == 8 // num_workers
        found |= read(feed, step)
    assert found == expected and sorted(found) == list(range(8))
    assert all(samples[row] for row, _ in found.values())


def test_a_step_is_the_same_after_a_resume_in_the_middle_of_an_epoch(split):
    samples = np.arange(100) % 3
    whole = feed_of(split(100), samples)
    steps = [read(whole, step) for step in range(40)]  # three epochs
    assert len({tuple(sorted(step.values())) for step in steps}) > 20
    for first in (5, 13, 27):
        again = feed_of(split(100), samples, num_threads=3)
        assert [read(again, step) for step in range(first, first + 5)] == steps[first : first + 5]


def test_another_seed_gives_another_order(split):
    one, other = (
        TaskFeed(
            split(100), ["n"], build, np.ones(100, np.int64), batch_size=8, micro_batch=8,
            num_substreams=4, shuffle_window=4, seed=seed, rank=0, num_workers=1,
        )
        for seed in (1, 2)
    )  # fmt: skip
    assert read(one, 0) != read(other, 0)


def test_a_small_split_is_mixed_over_all_its_rows(split):
    """In one row group; neighbors of the file do not follow each other."""
    feed = feed_of(split(400, 512), np.ones(400, int))
    rows = [row for row, _ in sequence(feed, 0, 90)]
    assert np.mean(np.abs(np.diff(rows)) == 1) < 0.1
    assert max(rows) > 300 and min(rows) < 100


@pytest.mark.parametrize("num_used", [0, 1, 3])
def test_fewer_examples_than_substreams_are_refused_with_what_to_set(split, num_used):
    samples = np.zeros(20, int)
    samples[:num_used] = 5
    message = f"{num_used} examples to train on are fewer than 4 .* {max(num_used, 1)} or less"
    with pytest.raises(ValueError, match=message):
        feed_of(split(20), samples)
    if num_used:
        feed = feed_of(split(20), samples, num_substreams=1)
        assert {row for row, _ in read(feed, 0).values()} <= set(range(num_used))


def test_workers_read_their_own_row_groups_alone(split):
    """With many row groups, a worker of four reads about a quarter of them in an epoch."""
    dataset = split(2000)
    feed = feed_of(dataset, np.ones(2000, int), 1, 4, shuffle_window=2)
    for step in range(200):
        feed.step(step)
    assert feed._reader.num_reads < 0.5 * len(dataset.row_groups())
