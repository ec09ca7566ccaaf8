"""Readers of list files and archives: every line ends as a row or as a reject."""

import contextlib
import csv
import html
import itertools
import json
import re
import unicodedata
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dataprep.sources import own_lists, sbu
from dataprep.sources.compression import compression_of
from dataprep.sources.conceptual import read_cc3m, read_cc12m
from dataprep.sources.documents import document_tables, read_jsonl
from dataprep.sources.entries import BadEntry, Entry, index_tables
from dataprep.sources.lines import LineRange, ListError, check_text, line_ranges, read_lines


def refused(path: Path) -> bool:
    """Whether a file is refused as one that is not text, which is then so by every function."""
    try:
        check_text(path)
    except ListError:
        with pytest.raises(ListError, match=r"expected (UTF-8|a text file|LF)"):
            line_ranges(path, 1)
        return True
    return False


@given(
    lines=st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    per_slice=st.integers(1, 5),
    ended=st.booleans(),
)
def test_ranges_hold_every_line_once_under_its_number(lines, per_slice, ended, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "list.tsv"
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    path.write_bytes(data)
    assume(compression_of(path) is None and not refused(path))
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    ranges = line_ranges(path, per_slice)
    read = [line for line_range in ranges for line in read_lines(path, line_range)]
    assert [line.number for line in read] == list(range(1, len(expected) + 1))
    for line, data in zip(read, expected, strict=True):
        try:
            assert line.text == data.decode().removeprefix("\ufeff") and line.problem is None
        except UnicodeDecodeError:
            assert "not UTF-8" in line.problem
    assert all(line_range.num_lines == per_slice for line_range in ranges[:-1])
    assert all(
        len(list(read_lines(path, line_range))) == line_range.num_lines for line_range in ranges
    )


def whole(path: Path) -> LineRange:
    (line_range,) = line_ranges(path, 1_000_000)
    return line_range


def tables(reader, path: Path, source: str) -> tuple[pa.Table, pa.Table]:
    return index_tables(reader(path, whole(path)), source, path.name)


def test_the_two_conceptual_lists_have_opposite_column_orders(tmp_path):
    path = tmp_path / "list.tsv"
    path.write_text("a red circle , left .\thttp://x.org/1.jpg\n")
    (row,) = tables(read_cc3m, path, "cc3m")[0].to_pylist()
    assert row == {
        "sample_id": "cc3m/000000001",
        "source": "cc3m",
        "url": "http://x.org/1.jpg",
        "captions": ["a red circle, left."],
        "sha256": None,
        "held_out": None,
        "group": None,
    }
    path.write_text("http://x.org/1.jpg\tA red &amp; blue circle\n")
    (row,) = tables(read_cc12m, path, "cc12m")[0].to_pylist()
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
    rows, rejects = tables(read_cc3m, path, "cc3m")
    assert rows.num_rows == 1
    (reject,) = rejects.to_pylist()
    assert (reject["sample_id"], reject["reason"]) == ("cc3m/000000002", reason)
    assert "list.tsv:2" in reject["detail"]


@given(data=st.binary(max_size=300))
@example(data=b"PK\x03\x04 as a zip archive begins")
@example(data=b"\xff\xfea\0")
@example(data=b"\x1f\x8b as a gzip file begins\n")
@example(data=b"\x28\xb5\x2f\xfd")
def test_no_list_file_crashes_a_reader(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "list"
    path.write_bytes(data)
    if refused(path):
        return
    for line_range in line_ranges(path, 3):
        num_lines = len(list(read_lines(path, line_range)))
        for reader in (read_cc3m, read_cc12m):
            found = index_tables(reader(path, line_range), "s", path.name)
            assert sum(table.num_rows for table in found) == num_lines
        found = document_tables(read_jsonl(path, line_range, "text"), "s", path.name, 1)
        assert sum(table.num_rows for table in found) == num_lines
        assert len(list(sbu.read_lines_form(path, path, (line_range, line_range)))) == num_lines
        entries = list(own_lists.read_jsonl(path, line_range, "url", "caption"))
        assert len(entries) == num_lines
    for form, quoting in itertools.product(("csv", "tsv"), (True, False)):
        with contextlib.suppress(ListError):
            names = own_lists.header(path, form, quoting)
            own_lists.check_columns(path, names, names[:1])
            for line_range in line_ranges(path, 3):
                entries = own_lists.read_table(
                    path, form, line_range, names[0], names[0], quoting=quoting
                )
                header_here = line_range.first_line == 1
                assert len(list(entries)) == line_range.num_lines - header_here
    with contextlib.suppress(sbu.SbuError):
        list(sbu.read_json_form(path, 0, 9))


@given(
    scheme=st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "http:/", ""]),
    rest=st.text(st.sampled_from("aZ0.-:/?#[]@%\\ é\t\u2100"), max_size=8) | st.text(max_size=8),
    caption=st.text(st.sampled_from("aB&amp; \t\n\x1f\u200b\u0301e"), min_size=1, max_size=9),
)
def test_the_fast_paths_give_the_same_rows(scheme, rest, caption):
    url = (scheme + rest).strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    text = unicodedata.normalize("NFC", html.unescape(caption))
    cleaned = " ".join(re.sub(r"[\x00-\x08\x0b-\x1f\x7f\u200b\ufeff]", " ", text).split())
    rows, rejects = index_tables([Entry(1, url, (caption,))], "s", "list")
    if cleaned and usable:
        assert rows["captions"].to_pylist() == [[cleaned]]
    else:
        assert rejects["reason"].to_pylist() == ["bad_url" if cleaned else "empty_caption"]


def test_both_formats_of_sbu_give_the_same_entries(tmp_path):
    urls = [f"http://flickr.example/{i}.jpg" for i in range(5)]
    captions = ["one dog", "two\u2028cats", "", "four birds", "five"]
    (tmp_path / "urls").write_text("\n".join(urls) + "\n")
    (tmp_path / "captions").write_text("\n".join(captions) + "\n")
    lists = {"image_urls": urls, "user_ids": [1] * 5, "captions": captions}
    (tmp_path / "sbu.json").write_text(json.dumps(lists))
    ranges = sbu.paired_ranges(tmp_path / "urls", tmp_path / "captions", 2)
    assert [len(list(read_lines(tmp_path / "urls", urls))) for urls, _ in ranges] == [2, 2, 1]
    of_lines = [
        entry
        for line_range in ranges
        for entry in sbu.read_lines_form(tmp_path / "urls", tmp_path / "captions", line_range)
    ]
    of_json = [e for i in (0, 2, 4) for e in sbu.read_json_form(tmp_path / "sbu.json", i, i + 2)]
    assert of_lines == of_json
    rows, rejects = index_tables(of_json, "sbu", "sbu.json")
    assert rows["captions"].to_pylist() == [["one dog"], ["two cats"], ["four birds"], ["five"]]
    assert rejects["reason"].to_pylist() == ["empty_caption"]


def test_sbu_files_that_do_not_belong_together_are_refused(tmp_path):
    (tmp_path / "urls").write_text("http://a.org/1\nhttp://a.org/2\n")
    (tmp_path / "captions").write_text("one\n")
    with pytest.raises(sbu.SbuError, match=r"has 2 lines and .* has 1"):
        sbu.paired_ranges(tmp_path / "urls", tmp_path / "captions", 10)
    for content in ("[]", '{"image_urls": [], "captions": ["a"]}', "{", '{"captions": []}'):
        (tmp_path / "sbu.json").write_text(content)
        with pytest.raises(sbu.SbuError, match=r"sbu\.json"):
            sbu.json_lists(tmp_path / "sbu.json")


OWN = [("http://a.org/1.jpg", 'a "quoted", red dog'), ("http://a.org/2.jpg", "zwei Hünde")]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_an_own_list_is_read_by_the_names_of_its_columns(tmp_path, form):
    path = tmp_path / "own"
    with path.open("w", newline="", encoding="utf-8-sig" if form == "csv" else "utf-8") as file:
        if form == "jsonl":
            file.writelines(json.dumps({"alt": c, "id": 1, "link": u}) + "\n" for u, c in OWN)
        else:
            writer = csv.writer(file, delimiter="," if form == "csv" else "\t")
            writer.writerows([("alt", "id", "link"), *((c, 1, u) for u, c in OWN)])
        file.write("not an entry\n")
    entries = [
        entry
        for line_range in line_ranges(path, 2)
        for entry in (
            own_lists.read_jsonl(path, line_range, "link", "alt")
            if form == "jsonl"
            else own_lists.read_table(path, form, line_range, "link", "alt", quoting=True)
        )
    ]
    first = 1 if form == "jsonl" else 2
    assert entries[:2] == [
        Entry(first + i, url, (caption,)) for i, (url, caption) in enumerate(OWN)
    ]
    assert isinstance(entries[2], BadEntry) and entries[2].number == first + 2


def test_an_own_parquet_list_is_read_by_row_groups(tmp_path):
    urls, captions = [*(u for u, _ in OWN), None], [*(c for _, c in OWN), "x"]
    pq.write_table(pa.table({"link": urls, "alt": captions}), tmp_path / "own", row_group_size=2)
    groups = [own_lists.read_parquet(tmp_path / "own", g, 1 + 2 * g, "link", "alt") for g in (0, 1)]
    entries = [entry for group in groups for entry in group]
    assert entries[:2] == [Entry(1 + i, url, (caption,)) for i, (url, caption) in enumerate(OWN)]
    assert isinstance(entries[2], BadEntry)


def test_a_missing_column_is_named_with_the_existing_ones(tmp_path):
    (tmp_path / "own.csv").write_text("link,alt\n")
    names = own_lists.header(tmp_path / "own.csv", "csv", True)
    with pytest.raises(ListError, match="no column url; it has link, alt"):
        own_lists.check_columns(tmp_path / "own.csv", names, ["url", "alt"])


def test_documents_are_cleaned_and_bad_ones_rejected(tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text('{"text": "A  long\\n\\n\\nstory"}\n{"text": "x"}\n{"text": 3}\n[1\n{"a": 1}\n')
    documents = read_jsonl(path, whole(path), "text")
    rows, rejects = document_tables(documents, "own", path.name, 5)
    assert rows["text"].to_pylist() == ["A long\nstory"]
    assert rejects["reason"].to_pylist() == ["too_short"] + ["malformed_line"] * 3


def test_the_lists_of_the_miniature_web_match_its_truth(web):
    truth = pq.read_table(web / "truth.parquet").to_pylist()
    for source, reader in (("cc3m", read_cc3m), ("cc12m", read_cc12m)):
        path = web / f"{source}.tsv"
        _, rejects = tables(reader, path, source)
        malformed = {
            row["sample_id"]
            for row in truth
            if row["source"] == source and row["outcome"] == "malformed_line"
        }
        assert malformed
        assert set(rejects["sample_id"].to_pylist()) == malformed
