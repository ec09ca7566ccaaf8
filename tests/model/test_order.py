"""The sampling order: every sample once an epoch, the same for any number of workers."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.order import Order
from model.training.spreading import spread


def read(order, steps):
    """Return the (row, index within the row) of every slot of some steps."""
    found = []
    for step in range(steps):
        rows, members = order.samples(step, np.arange(order.batch))
        found.append(list(zip(rows.tolist(), members.tolist(), strict=True)))
    return found


@given(
    groups=st.lists(st.integers(1, 9), min_size=4, max_size=20),
    substreams=st.sampled_from([1, 2, 4]),
    window=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_substreams_together_read_every_sample_once_an_epoch(
    groups, substreams, window, seed, data
):
    total = sum(groups)
    counts = np.array(data.draw(st.lists(st.integers(1, 6), min_size=total, max_size=total)))
    order = Order(
        groups,
        batch=substreams,
        num_substreams=substreams,
        shuffle_window=window,
        seed=seed,
        samples_per_row=counts,
    )
    expected = {(row, member) for row in range(total) for member in range(counts[row])}
    assert order.samples_per_epoch == len(expected)
    first_epochs = Counter()
    for substream in range(substreams):
        sequence, slot = [], np.array([substream])
        while len(sequence) == len(set(sequence)):
            rows, members = order.samples(len(sequence), slot)
            sequence.append((int(rows[0]), int(members[0])))
        length = int(order._dealing.lengths[substream])
        assert len(sequence) > length  # a sample comes again only after a whole epoch
        first_epochs.update(sequence[:length])
    assert set(first_epochs) == expected and set(first_epochs.values()) == {1}


def test_substreams_have_epochs_of_nearly_equal_length():
    generator = np.random.default_rng(0)
    counts = np.where(generator.random(64 * 400) < 0.02, 50, 1)
    lengths = Order(
        [64] * 400,
        batch=16,
        num_substreams=16,
        shuffle_window=4,
        seed=0,
        samples_per_row=counts,
    )._dealing.lengths
    assert lengths.max() - lengths.min() <= 64 and lengths.sum() == counts.sum()


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_workers(num_workers):
    def order():
        return Order(
            [7, 3, 9, 4, 8, 2],
            batch=12,
            num_substreams=4,
            shuffle_window=2,
            seed=1,
            samples_per_row=np.arange(33) % 4 + 1,
        )

    for step in (0, 5, 40):  # crosses epochs
        expected = order().samples(step, np.arange(12))
        for rank in range(num_workers):
            other = order()
            slots = other.slots(rank, num_workers)
            assert len(slots) == 12 // num_workers
            found = other.samples(step, slots)
            assert all(np.array_equal(a, b[slots]) for a, b in zip(found, expected, strict=True))


def test_a_step_does_not_depend_on_the_calls_before_it():
    one, other = (
        Order([6] * 9, batch=6, num_substreams=3, shuffle_window=2, seed=8) for _ in range(2)
    )
    read(one, 20)
    assert np.array_equal(one.samples(31, np.arange(6)), other.samples(31, np.arange(6)))


def test_epochs_and_seeds_differ():
    def first_rows(seed, step):
        order = Order([4] * 8, batch=4, num_substreams=1, shuffle_window=8, seed=seed)
        return order.samples(step, np.arange(4))[0].tolist()

    assert len({tuple(first_rows(seed, step)) for seed in (0, 1) for step in (0, 8)}) == 4


def corpus():
    """Number of captions of the images of 300 row groups, shaped as CC's, COCO's, and VG's."""
    return np.repeat([1] * 230 + [5] * 40 + [50] * 30, 32)


def order_of(counts, batch):
    return Order(
        [32] * 300,
        batch=batch,
        num_substreams=8,
        shuffle_window=4,
        seed=5,
        samples_per_row=counts,
    )


def test_sources_weigh_as_many_pairs_as_they_have_captions():
    counts = corpus()
    order = order_of(counts, batch=64)
    drawn = Counter()
    num_steps = 10_000 // 64
    for step in range(0, order.samples_per_epoch // 64, order.samples_per_epoch // 64 // num_steps):
        rows, _ = order.samples(step, np.arange(64))
        drawn.update(counts[rows].tolist())
    total = drawn.total()
    for kind in (1, 5, 50):
        expected = (counts[counts == kind]).sum() / counts.sum()
        # Four standard deviations of a proportion.
        tolerance = 4 * np.sqrt(expected * (1 - expected) / total)
        assert drawn[kind] / total == pytest.approx(expected, abs=tolerance)


def test_captions_of_an_image_are_spread_over_the_epoch_and_never_share_a_step():
    counts = corpus()
    batch = 64
    order = order_of(counts, batch=batch)
    num_steps = int(order._dealing.lengths.min()) // (batch // 8)
    steps = read(order, num_steps)
    steps_of_row = {}
    for step, samples in enumerate(steps):
        rows = [row for row, _ in samples]
        assert len(set(rows)) == len(rows)
        for row in rows:
            steps_of_row.setdefault(row, []).append(step)
    of_regions = [np.array(found) for row, found in steps_of_row.items() if counts[row] == 50]
    quarters = [np.bincount(found * 4 // num_steps, minlength=4) for found in of_regions]
    assert np.min(quarters) >= 5  # of 50 captions, each quarter of the epoch shows a part
    neighbors = [np.count_nonzero(np.diff(found) < num_steps / 50 / 8) for found in of_regions]
    assert np.mean(neighbors) < 1  # evenly spread, hardly two stand close to each other


def test_a_row_group_is_read_a_few_times_however_many_captions_its_images_have():
    counts = corpus()
    order = order_of(counts, batch=8)
    reads = Counter()
    for substream in range(8):
        held = set()
        for window in order._dealing.windows(substream, 0):
            needed = {visit.group for visit in window.visits}
            reads.update(needed - held)
            held = needed
    assert max(reads.values()) <= 8


def test_a_small_corpus_repeats_an_image_in_a_step_only_where_it_must():
    # 2 groups of 4 images with 6 captions; a step takes 4 of each substream's 4 images.
    order = Order(
        [4, 4],
        batch=8,
        num_substreams=2,
        shuffle_window=8,
        seed=0,
        samples_per_row=np.full(8, 6),
    )
    for samples in read(order, 6):
        assert len({row for row, _ in samples}) == 8


@given(weight=st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0, 2.5]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_weight_says_how_often_an_epoch_shows_a_source(weight, seed):
    rows = 64 * 20
    weights = np.where(np.arange(rows) < rows // 2, 1.0, weight)  # group 9 ends the first source
    order = Order(
        [64] * 20,
        batch=1,
        num_substreams=1,
        shuffle_window=3,
        seed=seed,
        samples_per_row=np.full(rows, 2),
        row_weights=weights,
    )
    per_epoch = order.samples_per_epoch
    assert per_epoch == pytest.approx(rows + weight * rows, abs=10)
    shown = Counter()
    for epoch in range(4):
        seen = [order.samples(epoch * per_epoch + i, np.array([0])) for i in range(per_epoch)]
        samples = Counter((int(row[0]), int(member[0])) for row, member in seen)
        assert all(samples[row, member] == 1 for row in range(rows // 2) for member in range(2))
        shown.update({key: n for key, n in samples.items() if key[0] >= rows // 2})
    times = [shown[row, member] for row in range(rows // 2, rows) for member in range(2)]
    # Over four epochs the samples of a source are shown equally often, to one.
    assert max(times) - min(times) <= 1 and np.mean(times) == pytest.approx(4 * weight, abs=0.05)


@pytest.mark.parametrize(
    ("groups", "batch", "substreams", "words"),
    [
        ([3] * 9, 10, 4, "not a multiple of 4"),
        ([3] * 3, 8, 4, "3 row groups"),
        ([3, 0], 2, 2, "row group 1 has no rows"),
        ([], 2, 2, "no rows to train on"),
    ],
)
def test_batches_and_row_groups_that_do_not_fit_are_refused(groups, batch, substreams, words):
    with pytest.raises(ValueError, match=words):
        Order(groups, batch=batch, num_substreams=substreams, shuffle_window=1, seed=0)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"samples_per_row": np.ones(8, int)}, "samples_per_row has 8 numbers for 9 rows"),
        ({"row_weights": np.full(9, -0.5)}, "weight -0.5"),
        ({"row_weights": np.zeros(9)}, "0 row groups are fewer"),
    ],
)
def test_numbers_of_samples_and_weights_that_do_not_fit_are_refused(numbers, words):
    with pytest.raises(ValueError, match=words):
        Order([3] * 3, batch=1, num_substreams=1, shuffle_window=1, seed=0, **numbers)


@pytest.mark.parametrize("given", ["samples_per_row", "row_weights"])
def test_a_table_without_rows_is_refused_whatever_is_known_of_its_rows(given):
    with pytest.raises(ValueError, match="no rows to train on"):
        Order([], batch=1, num_substreams=1, shuffle_window=1, seed=0, **{given: np.empty(0, int)})


def exchanged(rows, size):
    """Exchange rows until no block of ``size`` has one twice; each with the nearest that fits."""
    rows = rows.tolist()
    blocks = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    for p in range(len(rows)):
        here = [rows[q] for q in blocks[p // size]]
        if here.count(rows[p]) > 1:
            for q in sorted(range(len(rows)), key=lambda q: (abs(q - p), q)):
                there = [rows[r] for r in blocks[q // size]]
                if rows[p] not in there and rows[q] not in here:
                    rows[p], rows[q] = rows[q], rows[p]
                    break
    return rows


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    size=st.integers(1, 20),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_samples_of_a_row_leave_a_block_by_the_shortest_exchange_that_fits(counts, size, seed):
    rows = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(rows))
    before = spread(rows, numbers, seed)  # blocks of one sample need no exchange
    after = spread(rows, numbers // size, seed)
    assert sorted(after.tolist()) == numbers.tolist()
    assert rows[after].tolist() == exchanged(rows[before], size)


def test_a_window_with_far_fewer_rows_than_a_block_has_positions_is_ordered_within_seconds():
    rows = np.repeat(np.arange(200), 20_000 // np.arange(1, 201))  # 117,470 samples
    order = spread(rows, np.arange(len(rows)) // 128, 0)
    num_different = [len(set(rows[order[i : i + 128]].tolist())) for i in range(0, 50_000, 128)]
    assert min(num_different) > 30


@pytest.mark.parametrize("num_workers", range(1, 9))
def test_any_number_of_workers_up_to_that_of_substreams_fills_each_slot_once(num_workers):
    order = Order([3] * 9, batch=16, num_substreams=8, shuffle_window=1, seed=0)
    parts = [order.slots(rank, num_workers) for rank in range(num_workers)]
    assert sorted(np.concatenate(parts)) == list(range(16))
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] in (0, 2)


def test_more_workers_than_substreams_are_refused():
    order = Order([3] * 9, batch=4, num_substreams=4, shuffle_window=1, seed=0)
    with pytest.raises(ValueError, match="5 workers are more than 4 substreams"):
        order.slots(0, 5)


@given(
    groups=st.lists(st.integers(1, 9), min_size=4, max_size=20),
    window=st.integers(1, 5),
    first=st.integers(0, 60),
    number=st.integers(1, 12),
    most=st.sampled_from([1, 7]),
    num_workers=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=60, deadline=None)
def test_the_row_groups_of_some_steps_are_those_whose_rows_they_read(
    groups, window, first, number, most, num_workers
):
    counts = np.arange(sum(groups)) % most + 1
    order = Order(
        groups, batch=8, num_substreams=4, shuffle_window=window, seed=1, samples_per_row=counts
    )
    of_row = np.repeat(np.arange(len(groups)), groups)
    for rank in range(num_workers):
        slots = order.slots(rank, num_workers)
        held = order.groups(range(first, first + number), slots)
        for step in range(first, first + number):
            assert set(of_row[order.samples(step, slots)[0]].tolist()) <= held


@given(
    groups=st.lists(st.integers(1, 30), min_size=12, max_size=40),
    substreams=st.sampled_from([1, 3, 4]),
    per_substream=st.integers(1, 7),
    window=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_windows_that_end_within_row_groups_give_what_the_row_groups_have(
    groups, substreams, per_substream, window, seed
):
    """Captions and weights together, over three epochs of each substream."""
    generator = np.random.default_rng(seed)
    captions = generator.integers(1, 9, sum(groups))
    weights = generator.choice([0.5, 1.0, 2.0], sum(groups))
    order = Order(
        groups,
        batch=substreams * per_substream,
        num_substreams=substreams,
        shuffle_window=window,
        seed=seed,
        samples_per_row=captions,
        row_weights=weights,
    )
    lengths = order._dealing.lengths
    steps = read(order, -(-3 * int(lengths.max()) // per_substream))
    for epoch in range(3):
        found = Counter()
        for substream, length in enumerate(lengths.tolist()):
            first = substream * per_substream
            sequence = [pair for step in steps for pair in step[first : first + per_substream]]
            found.update(sequence[epoch * length : (epoch + 1) * length])
        expected = Counter()
        for group in range(len(groups)):
            rows, members = order._dealing.samples.of(group, epoch)
            expected.update(zip(rows.tolist(), members.tolist(), strict=True))
        assert found == expected


def new_groups(order, slots, steps, block=8):
    """Return how many row groups each block of steps needs that the one before did not."""
    needed = [order.groups(range(step, step + block), slots) for step in steps[::block]]
    return [len(later - earlier) for earlier, later in pairwise(needed)]


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_row_groups_of_one_size_are_read_evenly_within_an_epoch(num_workers):
    """32 substreams of 8 samples a step: a window of 4 row groups lasts 32 steps."""
    order = Order([64] * 32 * 40, batch=256, num_substreams=32, shuffle_window=4, seed=0)
    num_steps = order.samples_per_epoch // 256
    for rank in range(num_workers):
        slots = order.slots(rank, num_workers)
        reads = new_groups(order, slots, range(64, num_steps - 64))
        assert set(reads) == {32 // num_workers}  # a row group lasts 8 steps


def test_row_groups_with_different_numbers_of_samples_are_read_rather_evenly():
    counts = np.repeat([1] * 30 + [5] * 6 + [50] * 4, 64)
    order = Order(
        [64] * 40 * 64,
        batch=512,
        num_substreams=64,
        shuffle_window=4,
        seed=0,
        samples_per_row=np.tile(counts, 64),
    )
    num_steps = order.samples_per_epoch // 512
    reads = new_groups(order, order.slots(0, 1), range(64, num_steps - 64))
    # A block may read a window of each of the 64 substreams; of these, few begin in it.
    assert max(reads) <= 64 * 4 / 4
    assert np.quantile(reads, 0.99) < 6 * np.mean(reads)


def test_an_epoch_begins_with_windows_of_all_lengths():
    order = Order([64] * 320, batch=64, num_substreams=8, shuffle_window=4, seed=0)
    for epoch in range(2):
        windows = [order._dealing.windows(substream, epoch) for substream in range(8)]
        assert [some[1].first for some in windows] == [32, 64, 96, 128, 160, 192, 224, 256]
        lengths = {b.first - a.first for some in windows for a, b in pairwise(some[1:])}
        assert lengths == {256}


def test_no_more_row_groups_are_held_than_the_windows_of_the_substreams():
    order = Order([64] * 320, batch=64, num_substreams=8, shuffle_window=4, seed=0)
    num_steps = order.samples_per_epoch // 64
    for rank in range(4):
        slots = order.slots(rank, 4)  # 2 substreams, each of 8 samples a step
        for step in range(2 * num_steps):  # the epochs of all substreams end with a step
            held = order.groups(range(step, step + 1), slots)
            assert len(held) <= 2 * (4 + 1)  # a window may begin and end within a row group
