"""Batches of the image tokenizer come from the whole corpus, and its images are read about once."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa

from model.training.order import Order
from orchestration.dataset import Dataset
from orchestration.storage.store import Store
from pipelines.readers.kept_images import KeptImages
from pipelines.tokens import vqkd_training
from tests.committing import commit_tables

PER_CLASS, NUM_CLASSES = 60, 200


def opened(tmp_path, kept_rows, keep=2) -> KeptImages:
    """A class-sorted dataset in row groups of 256, of which curation kept some rows."""
    total = PER_CLASS * NUM_CLASSES
    table = pa.table({"sample_id": [f"n/{i}" for i in range(total)]})
    images = commit_tables(Store(tmp_path / "images"), [table], row_group_rows=256)
    number = len(kept_rows)
    locations = pa.table({"dataset": np.zeros(number, np.int32), "row": kept_rows})
    kept = commit_tables(Store(tmp_path / "kept"), [locations], row_group_rows=4096)
    return KeptImages([kept], [images], ["sample_id"], keep)


def order(groups, batch=512, num_substreams=8) -> Order:
    return Order(
        groups,
        batch=batch,
        num_substreams=num_substreams,
        shuffle_window=vqkd_training.SHUFFLE_WINDOW,
        seed=3,
    )


def test_runs_lie_within_row_groups_and_hold_every_kept_image_once(tmp_path):
    kept_rows = np.flatnonzero(np.random.default_rng(0).random(PER_CLASS * NUM_CLASSES) < 0.7)
    images = opened(tmp_path, kept_rows)
    runs = images.row_groups(64)
    assert sum(runs) == len(images) and max(runs) <= 64 and min(runs) > 0
    starts = np.cumsum([0, *runs])
    for start, stop in pairwise(starts.tolist()):
        assert len(set((kept_rows[start:stop] // 256).tolist())) == 1


def test_without_images_there_are_no_runs(tmp_path):
    assert opened(tmp_path, np.empty(0, np.int64)).row_groups(64) == []


def test_a_batch_of_a_class_sorted_corpus_has_most_of_the_classes_of_a_random_one(tmp_path):
    images = opened(tmp_path, np.arange(PER_CLASS * NUM_CLASSES))
    batches = order(images.row_groups(vqkd_training.GROUP_ROWS))
    slots = np.arange(512)
    found = [
        len(set((batches.samples(step, slots)[0] // PER_CLASS).tolist())) for step in range(20)
    ]
    rng = np.random.default_rng(0)
    random = [len(set(rng.integers(0, NUM_CLASSES, 512).tolist())) for _ in range(20)]
    # Eight substreams of four runs would show about 50 of the classes.
    assert np.mean(found) > 0.75 * np.mean(random)


def test_each_row_group_is_read_a_few_times_in_an_epoch(tmp_path, monkeypatch):
    reads: Counter[int] = Counter()
    read_group = Dataset.read_group

    def counted(dataset, group, columns):
        if columns == ["sample_id"]:  # of the images; those of their locations are small
            reads[group.first_row] += 1
        return read_group(dataset, group, columns)

    monkeypatch.setattr(Dataset, "read_group", counted)
    keep = vqkd_training.SHUFFLE_WINDOW * 8 + 1
    images = opened(tmp_path, np.arange(PER_CLASS * NUM_CLASSES), keep)
    batches = order(images.row_groups(vqkd_training.GROUP_ROWS))
    for step in range(PER_CLASS * NUM_CLASSES // 512):
        images.take(batches.samples(step, np.arange(512))[0])
    assert max(reads.values()) == 1  # all of this small corpus stays in memory
    reads.clear()
    lean = opened(tmp_path / "lean", np.arange(PER_CLASS * NUM_CLASSES), 8)
    for step in range(3):
        lean.take(batches.samples(step, np.arange(512))[0])
    assert max(reads.values()) <= 3  # once a step at most, whatever the memory
