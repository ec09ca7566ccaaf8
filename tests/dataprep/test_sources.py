"""Readers of list files and archives: every line ends as a row or as a reject."""

import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.sources.documents import read_documents
from dataprep.sources.imagenet21k import read_synset, synsets
from dataprep.sources.lines import LineRange, line_ranges, read_lines
from dataprep.sources.pair_lists import read_cc3m, read_cc12m


@given(
    lines=st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    per_slice=st.integers(1, 5),
    ended=st.booleans(),
)
def test_ranges_hold_every_line_once_under_its_number(lines, per_slice, ended, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "list.tsv"
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    path.write_bytes(data)
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    ranges = line_ranges(path, per_slice)
    read = [pair for piece in ranges for pair in read_lines(path, piece)]
    assert read == list(enumerate(expected, start=1))
    assert all(piece.num_lines == per_slice for piece in ranges[:-1])
    assert all(len(list(read_lines(path, piece))) == piece.num_lines for piece in ranges)


def whole(path: Path) -> LineRange:
    (piece,) = line_ranges(path, 1_000_000)
    return piece


def test_the_two_conceptual_lists_have_their_columns_the_other_way_round(tmp_path):
    path = tmp_path / "list.tsv"
    path.write_text("a red circle , left .\thttp://x.org/1.jpg\n")
    (row,) = read_cc3m(path, whole(path), "cc3m")[0].to_pylist()
    assert row == {
        "sample_id": "cc3m/000000001",
        "source": "cc3m",
        "url": "http://x.org/1.jpg",
        "captions": ["a red circle, left."],
    }
    path.write_text("http://x.org/1.jpg\tA red &amp; blue circle\n")
    (row,) = read_cc12m(path, whole(path), "cc12m")[0].to_pylist()
    assert (row["url"], row["captions"]) == ("http://x.org/1.jpg", ["A red & blue circle"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"only one column", "malformed_line"),
        (b"a\tb\tc", "malformed_line"),
        (b"caption \xff\thttp://x.org/a.jpg", "malformed_line"),
        (b" \thttp://x.org/a.jpg", "empty_caption"),
        (b"a caption\tftp://x.org/a.jpg", "bad_url"),
        (b"a caption\thttp://[broken/a.jpg", "bad_url"),
    ],
)
def test_a_bad_line_is_a_reject_with_its_number(tmp_path, line, reason):
    path = tmp_path / "list.tsv"
    path.write_bytes(b"a cat\thttp://x.org/1.jpg\n" + line + b"\n")
    rows, rejects = read_cc3m(path, whole(path), "cc3m")
    assert rows.num_rows == 1
    (reject,) = rejects.to_pylist()
    assert (reject["sample_id"], reject["reason"]) == ("cc3m/000000002", reason)
    assert "list.tsv:2" in reject["detail"]


@given(data=st.binary(max_size=300))
def test_no_list_file_crashes_a_reader(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "list"
    path.write_bytes(data)
    for piece in line_ranges(path, 3):
        num_lines = len(list(read_lines(path, piece)))
        for tables in (
            read_cc3m(path, piece, "s"),
            read_cc12m(path, piece, "s"),
            read_documents(path, piece, "s", 1),
        ):
            assert sum(table.num_rows for table in tables) == num_lines


def test_documents_are_cleaned_and_bad_ones_rejected(tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text('{"text": "A  long\\n\\n\\nstory"}\n{"text": "x"}\n{"text": 3}\n[1\n{"a": 1}\n')
    rows, rejects = read_documents(path, whole(path), "own", 5)
    assert rows["text"].to_pylist() == ["A long\nstory"]
    assert rejects["reason"].to_pylist() == ["too_short"] + ["malformed_line"] * 3


def test_the_archive_is_read_as_tar_reads_it(web):
    expected = {}
    with tarfile.open(web / "imagenet21k.tar") as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                expected |= {Path(p.name).stem: inner.extractfile(p).read() for p in inner}
    found = {
        name: data
        for synset in synsets(web / "imagenet21k.tar")
        for name, data in read_synset(web / "imagenet21k.tar", synset)
    }
    assert found == expected


def test_the_lists_of_the_miniature_web_read_as_its_truth_says(web):
    truth = pq.read_table(web / "truth.parquet").to_pylist()
    for source, reader in (("cc3m", read_cc3m), ("cc12m", read_cc12m)):
        path = web / f"{source}.tsv"
        _, rejects = reader(path, whole(path), source)
        malformed = {
            row["sample_id"]
            for row in truth
            if row["source"] == source and row["outcome"] == "malformed_line"
        }
        assert malformed
        assert set(rejects["sample_id"].to_pylist()) == malformed
