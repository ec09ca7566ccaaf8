"""Codes of another tokenizer are found by sample and view, and faults are named.

The stage that writes them into token tables is tested in ``tests/pipelines/tokens``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.sources.code_files import (
    NO_CODES,
    OUT_OF_RANGE,
    WRONG_SHAPE,
    CodeFiles,
    check_code_file,
    code_groups,
    index_of,
    largest_group_bytes,
)
from dataprep.sources.lines import ListError

K, N, NUM_VIEWS = 50, 6, 3
Row = tuple[str | None, int | None, list[int | None] | None]


def rows_of(ids: Sequence[str], num_views: int = NUM_VIEWS) -> list[Row]:
    rng = np.random.default_rng(0)
    return [(i, view, rng.integers(0, K, N).tolist()) for i in ids for view in range(num_views)]


def write(path: Path, rows: Sequence[Row], codes: pa.DataType, **options) -> Path:
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    kinds = (options.pop("ids", pa.string()), options.pop("view", pa.int64()), codes)
    arrays = [
        pa.array(list(column), kind) for column, kind in zip(columns, kinds, strict=True)
    ]  # fmt: skip
    table = pa.table(dict(zip(("sample_id", "view", "codes"), arrays, strict=True)))
    pq.write_table(table, path, **options)
    return path


def reader(*paths: Path) -> CodeFiles:
    for path in paths:
        check_code_file(path)
    groups = code_groups(paths)
    return CodeFiles(groups, index_of(groups))


def read(files: CodeFiles, ids: Sequence[str]):
    return files.codes_of(pa.array(ids, pa.string()), NUM_VIEWS, N, K)


@pytest.mark.parametrize(
    ("codes", "ids"),
    [
        (pa.list_(pa.int64()), pa.string()),
        (pa.list_(pa.uint16()), pa.large_string()),
        (pa.large_list(pa.int32()), pa.dictionary(pa.int32(), pa.string())),
        (pa.list_(pa.uint8(), N), pa.string_view()),
        (pa.list_(pa.uint64()), pa.string()),
    ],
)
def test_rows_in_any_order_over_files_and_row_groups_are_found(tmp_path, codes, ids):
    names = [f"cc3m/{i}" for i in range(40)]
    rows = rows_of(names, num_views=NUM_VIEWS + 1)  # the last view is not asked for
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    files = reader(
        write(tmp_path / "a.parquet", shuffled[:70], codes, row_group_size=16, ids=ids),
        write(tmp_path / "b.parquet", shuffled[70:], codes, row_group_size=1000, ids=ids),
    )
    expected = {(name, view): codes for name, view, codes in rows}
    for some in (names[3:9], names[::-1], names[:1], []):
        found, faults = read(files, some)
        assert found.shape == (len(some), NUM_VIEWS, N) and found.dtype == np.uint16
        assert not faults
        for i, name in enumerate(some):
            for view in range(NUM_VIEWS):
                assert found[i, view].tolist() == expected[name, view]


FAULTS = {
    "missing image": (lambda rows: rows[NUM_VIEWS:], NO_CODES, "view 0 has no row"),
    "missing view": (lambda rows: [rows[0], *rows[2:]], NO_CODES, "view 1 has no row"),
    "null view": (lambda rows: [("x", None, rows[0][2]), *rows[1:]], NO_CODES, "view 0"),
    "twice": (lambda rows: [rows[1], *rows], WRONG_SHAPE, "view 1 has 2 rows"),
    "null": (lambda rows: [("x", 0, None), *rows[1:]], WRONG_SHAPE, "has null, expected 6"),
    "empty": (lambda rows: [("x", 0, []), *rows[1:]], WRONG_SHAPE, "view 0 has 0 codes"),
    "short": (lambda rows: [("x", 0, [1] * 5), *rows[1:]], WRONG_SHAPE, "view 0 has 5 codes"),
    "hole": (lambda rows: [("x", 0, [1, None] * 3), *rows[1:]], WRONG_SHAPE, "null among"),
    "large": (lambda rows: [("x", 0, [0] * 5 + [K]), *rows[1:]], OUT_OF_RANGE, "code 50, not in"),
    "negative": (lambda rows: [("x", 0, [-1] * 6), *rows[1:]], OUT_OF_RANGE, "-1, not in 0-49"),
    "above 16 bits": (lambda rows: [("x", 0, [65_536] * 6), *rows[1:]], OUT_OF_RANGE, "65536"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_of_its_image_alone(tmp_path, name):
    change, reason, words = FAULTS[name]
    good = rows_of(["before", "after"])
    rows = [*good[:NUM_VIEWS], *change(rows_of(["x"])), *good[NUM_VIEWS:]]
    files = reader(write(tmp_path / "a.parquet", rows, pa.list_(pa.int64()), row_group_size=4))
    codes, faults = read(files, ["before", "x", "after"])
    assert list(faults) == [1] and faults[1][0] == reason and words in faults[1][1]
    assert not codes[1].any()
    assert codes[[0, 2]].tolist() == [
        [codes for _, _, codes in good[:NUM_VIEWS]],
        [codes for _, _, codes in good[NUM_VIEWS:]],
    ]


def test_a_number_beyond_63_bits_is_out_of_range(tmp_path):
    rows = [("x", view, [1 << 63] * N) for view in range(NUM_VIEWS)]
    _, faults = read(reader(write(tmp_path / "a.parquet", rows, pa.list_(pa.uint64()))), ["x"])
    assert faults[0][0] == OUT_OF_RANGE


def test_no_rows_at_all_give_no_codes(tmp_path):
    files = reader(write(tmp_path / "a.parquet", [], pa.list_(pa.int64())))
    assert {reason for reason, _ in read(files, ["x", "y"])[1].values()} == {NO_CODES}


@pytest.mark.parametrize(
    ("options", "codes", "words"),
    [
        ({"view": pa.float64()}, pa.list_(pa.int64()), "column view is of type double, expected"),
        ({"ids": pa.binary()}, pa.list_(pa.int64()), "column sample_id is of type binary"),
        ({}, pa.list_(pa.float32()), "codes is of type list<.*>, expected a list of integers"),
    ],
)
def test_columns_of_other_types_are_refused(tmp_path, options, codes, words):
    with pytest.raises(ListError, match=words):
        check_code_file(write(tmp_path / "a.parquet", [], codes, **options))


def test_a_missing_column_and_another_format_are_refused(tmp_path):
    pq.write_table(pa.table({"sample_id": ["a"], "codes": [[1]]}), tmp_path / "a.parquet")
    with pytest.raises(ListError, match="no column view; it has sample_id, codes"):
        check_code_file(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("sample_id,view,codes")
    with pytest.raises(ListError, match="not a Parquet file"):
        check_code_file(tmp_path / "b.parquet")


def test_a_damaged_row_group_is_an_error_with_its_file(tmp_path):
    path = write(tmp_path / "a.parquet", rows_of(["a"] * 1), pa.list_(pa.int64()))
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    with pytest.raises(ListError, match=r"a\.parquet: row group 0 cannot be read"):
        read(reader(path), ["a"])


def test_the_largest_row_group_has_the_bytes_that_arrow_holds(tmp_path):
    rows = rows_of([f"a/{i}" for i in range(20)])
    narrow = write(tmp_path / "a.parquet", rows, pa.list_(pa.int32()), row_group_size=25)
    wide = write(tmp_path / "b.parquet", rows[:7], pa.list_(pa.int64()))
    for paths in ([narrow], [wide], [wide, narrow]):
        groups = [
            pq.ParquetFile(path).read_row_group(group)["codes"]
            for path in paths
            for group in range(pq.ParquetFile(path).num_row_groups)
        ]
        held = [column.combine_chunks().values.nbytes for column in groups]
        assert largest_group_bytes(paths) == max(held)
