"""The images that curation kept are found by reading the row groups that hold their locations."""

import numpy as np
import pyarrow as pa
import pytest

from orchestration.dataset import Dataset
from orchestration.storage.store import Store
from pipelines.readers import kept_images
from pipelines.readers.kept_images import KeptImages
from pipelines.report import held_out_counts
from tests.committing import commit_tables

SIZES = (700, 300, 500)
"Rows of the images datasets."


def images_of(number: int) -> pa.Table:
    names = [f"{number}/{row}" for row in range(SIZES[number])]
    return pa.table({
        "sample_id": names,
        "sha256": names,
        "held_out": pa.array([None, True, False, None] * (len(names) // 4), pa.bool_()),
        "group": pa.array([None, None, None, "g"] * (len(names) // 4)),
    })  # fmt: skip


@pytest.fixture
def images(tmp_path) -> list[Dataset]:
    """Three datasets in parts of 100 rows with row groups of 16."""
    return [
        commit_tables(
            Store(tmp_path / f"images-{number}"),
            [images_of(number).slice(start, 100) for start in range(0, SIZES[number], 100)],
            row_group_rows=16,
        )
        for number in range(len(SIZES))
    ]


@pytest.fixture
def kept(tmp_path) -> tuple[list[Dataset], list[tuple[int, int]]]:
    """Two tables of curation in row groups of 64, and the locations that they hold."""
    rng = np.random.default_rng(0)
    all_rows = [(d, r) for d, size in enumerate(SIZES) for r in range(size) if rng.random() < 0.6]
    tables, cut = [], 350
    for i, some in enumerate((all_rows[:cut], all_rows[cut:])):
        table = pa.table({
            "dataset": pa.array([d for d, _ in some], pa.int32()),
            "row": pa.array([r for _, r in some], pa.int64()),
            "captions": [[f"caption of {d}/{r}"] for d, r in some],
        })  # fmt: skip
        pieces = [table.slice(start, 200) for start in range(0, table.num_rows, 200)]
        tables.append(commit_tables(Store(tmp_path / f"kept-{i}"), pieces, row_group_rows=64))
    return tables, all_rows


@pytest.mark.parametrize("keep", [1, 2, 50])
def test_any_numbers_give_their_images_and_captions(images, kept, keep):
    tables, expected = kept
    opened = KeptImages(tables, images, ["captions", "sample_id"], keep)
    assert len(opened) == len(expected)
    rng = np.random.default_rng(1)
    for numbers in (np.arange(len(expected)), np.arange(340, 360), rng.permutation(len(expected))):
        table = opened.take(numbers)
        names = [f"{d}/{r}" for d, r in (expected[i] for i in numbers)]
        assert table.column_names == ["captions", "sample_id"]
        assert table["sample_id"].to_pylist() == names
        assert table["captions"].to_pylist() == [[f"caption of {name}"] for name in names]
        datasets, rows = opened.locations(numbers)
        assert list(zip(datasets.tolist(), rows.tolist(), strict=True)) == [
            expected[i] for i in numbers
        ]


@pytest.mark.parametrize("read_rows", [7, 64, 1 << 16])
@pytest.mark.parametrize("most", [1, 5, 1000])
def test_runs_are_those_of_all_locations_at_once(images, kept, monkeypatch, read_rows, most):
    monkeypatch.setattr(kept_images, "_READ_ROWS", read_rows)
    tables, expected = kept
    runs, last = [], None
    for dataset, row in expected:
        group = dataset, row // 100, row % 100 // 16
        if group == last and runs[-1] < most:
            runs[-1] += 1
        else:
            runs.append(1)
        last = group
    assert KeptImages(tables, images, []).row_groups(most) == runs


def test_a_slice_reads_only_the_row_groups_of_its_locations(images, kept, monkeypatch):
    tables, _ = kept
    reads = []
    read_group = Dataset.read_group

    def counted(dataset, group, columns):
        reads.append((tuple(columns), group.first_row))
        return read_group(dataset, group, columns)

    monkeypatch.setattr(Dataset, "read_group", counted)
    monkeypatch.setattr(Dataset, "read", None)
    opened = KeptImages(tables, images, ["sample_id"])
    assert reads == []
    opened.take(np.arange(130, 150))
    assert [first for columns, first in reads if columns == ("dataset", "row")] == [128]
    assert len(reads) < 6


@pytest.mark.parametrize("read_rows", [50, 1 << 16])
def test_counting_reads_the_columns_of_every_kept_image(images, kept, monkeypatch, read_rows):
    monkeypatch.setattr(held_out_counts, "_READ_ROWS", read_rows)
    tables, expected = kept
    found = {}
    for table in tables:
        for sources, rows in held_out_counts._kept_rows(table, images):
            for source, row in zip(sources.tolist(), rows.to_pylist(), strict=True):
                assert row["sha256"] not in found
                found[row["sha256"]] = source, row
    assert set(found) == {f"{d}/{r}" for d, r in expected}
    for name, (source, row) in found.items():
        dataset, number = map(int, name.split("/"))
        given = images_of(dataset).slice(number, 1).to_pylist()[0]
        assert source == dataset
        assert row["captions"] == [f"caption of {name}"]
        assert (row["held_out"], row["group"]) == (given["held_out"], given["group"])
