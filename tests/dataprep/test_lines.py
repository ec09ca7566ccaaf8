"""Text files as people have them: compressed, with a mark, in another encoding, cut off, altered.

The compressed files are written by the programs gzip, bzip2, xz and zstd.
"""

import codecs
import json
import lzma
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from dataprep.sources import own_lists
from dataprep.sources.compression import compression_of
from dataprep.sources.conceptual import read_cc3m, read_cc12m
from dataprep.sources.documents import read_jsonl, read_text_files, read_text_lines
from dataprep.sources.hash_list import make_table
from dataprep.sources.lines import (
    Line,
    ListError,
    about_lines,
    check_json_lines,
    check_text,
    first_line,
    line_ranges,
    read_lines,
)
from dataprep.sources.sbu import paired_ranges, read_lines_form

PROGRAMS = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
PARALLEL = {"pigz": "gzip", "pbzip2": "bzip2", "pixz": "xz", "pzstd": "zstd"}
LINES = [f"line {i} of {random.Random(i).getrandbits(90)}" for i in range(1, 20_001)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def compressed(path: Path, program: str, data: bytes) -> Path:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with path.open("wb") as out:
        subprocess.run([program, "-c"], input=data, stdout=out, check=True)
    return path


def lines_of(path: Path, num_lines: int = 3000) -> list[Line]:
    ranges = line_ranges(path, num_lines)
    found = [line for line_range in ranges for line in read_lines(path, line_range)]
    assert len(found) == sum(line_range.num_lines for line_range in ranges)
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_compressed_list_gives_the_lines_of_the_plain_one(tmp_path, program):
    path = compressed(tmp_path / "list", program, TEXT)
    assert [line.text for line in lines_of(path)] == LINES
    assert about_lines(path) == pytest.approx(len(LINES), rel=0.1)
    assert first_line(path) == LINES[0]
    two = tmp_path / "two"
    two.write_bytes(path.read_bytes() * 2)
    assert [line.text for line in lines_of(two)] == LINES * 2, "as `cat` joins such files"


@pytest.mark.parametrize("program", PARALLEL)
def test_a_list_that_a_parallel_program_compressed_gives_the_same_lines(tmp_path, program):
    path = compressed(tmp_path / "list", program, TEXT)
    assert compression_of(path) == PARALLEL[program]
    assert [line.text for line in lines_of(path)] == LINES


@pytest.mark.parametrize("text", ["BZh", "BZh9 is not enough", "BZhang,1", "BZ2,url"])
def test_a_text_that_begins_as_a_compressed_file_does_is_text(tmp_path, text):
    (tmp_path / "list").write_text(f"{text}\nsecond\n")
    assert compression_of(tmp_path / "list") is None
    assert [line.text for line in lines_of(tmp_path / "list")] == [text, "second"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_compressed_list_that_is_cut_off_gives_its_lines_and_one_reject(tmp_path, program):
    path = compressed(tmp_path / "list", program, TEXT)
    data = path.read_bytes()
    for size in (len(data) // 2, len(data) - 3):
        path.write_bytes(data[:size])
        *good, bad = lines_of(path)
        assert [line.text for line in good] == LINES[: len(good)]
        assert program in bad.problem and all(line.problem is None for line in good)
        assert program == "bzip2" or len(good) > len(LINES) * size / len(data) * 0.7
        assert about_lines(path) == pytest.approx(len(good), rel=0.1)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_compressed_list_with_altered_bytes_is_one_reject(tmp_path, program):
    path = compressed(tmp_path / "list", program, TEXT)
    data = bytearray(path.read_bytes())
    for position in (len(data) // 3, len(data) // 2):
        data[position] ^= 0x55
    path.write_bytes(bytes(data))
    (bad,) = lines_of(path)
    assert program in bad.problem
    assert about_lines(path) <= len(LINES)


@pytest.mark.parametrize("behind", [b"junk", b"\n", b"\0\0junk", b"\x1f\x8c" * 9])
def test_what_follows_the_end_of_a_gzip_file_costs_none_of_its_lines(tmp_path, behind):
    path = compressed(tmp_path / "list", "gzip", TEXT)
    path.write_bytes(path.read_bytes() + behind)
    for found in (lines_of(path), list(read_lines(path))):
        *good, bad = found
        assert [line.text for line in good] == LINES
        assert "Not a gzipped file" in bad.problem and bad.number == len(LINES) + 1
    assert about_lines(path) == pytest.approx(len(LINES), rel=0.1)


@pytest.mark.parametrize("data", [b"\x1f\x8b", b"\x1f\x8bnothing", b"BZh9", b"\xfd7zXZ\0\0"])
def test_a_file_of_magic_bytes_alone_is_one_reject(tmp_path, data):
    (tmp_path / "list").write_bytes(data)
    (bad,) = lines_of(tmp_path / "list")
    assert bad.problem and about_lines(tmp_path / "list") == 0


@pytest.mark.parametrize("program", [None, *PROGRAMS])
def test_a_byte_order_mark_is_dropped_by_every_reader(tmp_path, program):
    def file(name: str, text: str) -> Path:
        data = codecs.BOM_UTF8 + text.encode()
        if program is None:
            (tmp_path / name).write_bytes(data)
            return tmp_path / name
        return compressed(tmp_path / name, program, data)

    def entry(reader, path, *args, **named):
        return [(e.url, e.captions) for e in reader(path, *line_ranges(path, 9), *args, **named)]

    url, caption = "http://a.org/1", ("a dog",)
    assert entry(read_cc3m, file("cc3m", f"a dog\t{url}\n")) == [(url, caption)]
    assert entry(read_cc12m, file("cc12m", f"{url}\ta dog\n")) == [(url, caption)]
    urls, captions = file("urls", f"{url}\n"), file("captions", "a dog\n")
    (ranges,) = paired_ranges(urls, captions, 9)
    (found,) = read_lines_form(urls, captions, ranges)
    assert (found.url, found.captions) == (url, caption)
    path = file("csv", f"url,caption\n{url},a dog\n")
    assert own_lists.header(path, "csv", True) == ["url", "caption"]
    (line_range,) = line_ranges(path, 9)
    found = own_lists.read_table(path, "csv", line_range, "url", "caption", quoting=True)
    assert [(e.url, e.captions) for e in found] == [(url, caption)]
    path = file("jsonl", f'{{"url": "{url}", "caption": "a dog", "text": "a text"}}\n')
    assert entry(own_lists.read_jsonl, path, "url", "caption") == [(url, caption)]
    assert [d.text for d in read_jsonl(path, *line_ranges(path, 9), "text")] == ["a text"]
    path = file("a.txt", "a text")
    assert [d.text for d in read_text_lines(path, *line_ranges(path, 9))] == ["a text"]
    assert [d.text for d in read_text_files(tmp_path, ["a.txt"])] == ["a text"]
    path = file("hashes", f"{url}\t{'ab' * 32}\tmd5\n")
    assert make_table(path, tmp_path) == (1, 0)


def test_marks_within_a_file_that_cat_joined_are_dropped(tmp_path):
    (tmp_path / "list").write_bytes(codecs.BOM_UTF8 + b"a\n" + codecs.BOM_UTF8 + b"b\r\n")
    assert [line.text for line in lines_of(tmp_path / "list")] == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("program", [None, "gzip"])
def test_another_encoding_is_refused_by_name(tmp_path, encoding, program):
    data = "A long enough line.\n".encode(encoding)
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    if program:
        compressed(path, program, data)
    for check in (check_text, about_lines, first_line, lambda path: line_ranges(path, 9)):
        with pytest.raises(ListError, match=r"list\.txt: UTF-(16|32).*expected UTF-8"):
            check(path)
    (bad,) = read_text_files(tmp_path, ["list.txt"])
    assert "UTF-" in bad.detail


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a zip archive", b"PK\3\4"),
        ("a Parquet file", b"PAR1\x15\4"),
        ("a 7z archive", b"7z\xbc\xaf\x27\x1c"),
        ("an lz4 file", b"\x04\x22\x4d\x18"),
        ("a file of compress", b"\x1f\x9d\x90"),
        ("an lzma file", lzma.compress(b"a line", lzma.FORMAT_ALONE)),
        ("a snappy file", b"\xff\x06\0\0sNaPpY"),
        ("a rar archive", b"Rar!\x1a\x07\1\0"),
        ("a PDF file", b"%PDF-1.4\n"),
        ("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid"),
        ("a tar archive", b"a.txt".ljust(257, b" ") + b"ustar"),
    ],
)
@pytest.mark.parametrize("program", [None, "zstd"])
def test_another_file_is_refused_by_name(tmp_path, name, head, program):
    path = tmp_path / "list"
    path.write_bytes(head + b" rest")
    if program:
        compressed(path, program, head + b" rest")
    with pytest.raises(ListError, match=f"{name}.*, expected a text file"):
        line_ranges(path, 9)


@pytest.mark.parametrize("program", [None, "gzip"])
def test_lines_that_end_with_cr_alone_are_refused_by_name(tmp_path, program):
    path = tmp_path / "list"
    data = b"url,caption\rhttp://a.org/1,a dog\rhttp://a.org/2,a cat\r"
    path.write_bytes(data)
    if program:
        compressed(path, program, data)
    for check in (check_text, about_lines, first_line, lambda path: line_ranges(path, 9)):
        with pytest.raises(ListError, match="CR alone, expected LF"):
            check(path)


def test_a_carriage_return_within_a_line_stays(tmp_path):
    (tmp_path / "list").write_bytes(b"a\rb\rc\r\nd\r\n")
    assert [line.text for line in lines_of(tmp_path / "list")] == ["a\rb\rc", "d"]


ROWS = [{"url": "http://a.org/1", "text": "a"}, {"url": "http://a.org/2", "text": "b"}]


@pytest.mark.parametrize(
    "array",
    [json.dumps(ROWS), json.dumps(ROWS, indent=2), " [" + ",\n".join(map(json.dumps, ROWS)) + "]"],
)
def test_a_json_array_is_refused_where_a_line_is_an_object(tmp_path, array):
    (tmp_path / "list.jsonl").write_text(array)
    with pytest.raises(ListError, match="a JSON array, expected a JSON object per line"):
        check_json_lines(tmp_path / "list.jsonl")


@pytest.mark.parametrize("first", ['{"url": "[{"}', "[1", "[]", "", "[[1, 2], 3]"])
def test_json_lines_are_not_refused_for_a_bad_first_line(tmp_path, first):
    (tmp_path / "list.jsonl").write_text(f'{first}\n{{"text": "good"}}\n')
    check_json_lines(tmp_path / "list.jsonl")
    texts = read_jsonl(tmp_path / "list.jsonl", *line_ranges(tmp_path / "list.jsonl", 9), "text")
    assert [getattr(each, "text", None) for each in texts] == [None, "good"]


def test_the_rows_beside_a_line_that_is_not_utf8_come_through(tmp_path):
    (tmp_path / "list").write_bytes(b"a\n\xff\xfe\nb\ncaf\xe9\n")
    found = lines_of(tmp_path / "list", 2)
    assert [line.text for line in found] == ["a", "", "b", ""]
    assert [line.problem is None for line in found] == [True, False, True, False]


QUOTED = [
    ('"Hello" she said', '"Hello" she said'),
    ('"unclosed', '"unclosed'),
    ('a "b" c', 'a "b" c'),
    ('"whole"', '"whole"'),
    ("it's 5\" wide", "it's 5\" wide"),
]


@pytest.mark.parametrize(("written", "read"), QUOTED)
def test_tsv_is_read_verbatim(tmp_path, written, read):
    path = tmp_path / "list.tsv"
    path.write_text(f"url\tcaption\nhttp://a.org/1\t{written}\nhttp://a.org/2\tlast\n")
    (line_range,) = line_ranges(path, 9)
    first, last = own_lists.read_table(path, "tsv", line_range, "url", "caption", quoting=False)
    assert (first.captions, last.captions) == ((read,), ("last",))


def test_a_column_that_is_not_read_may_be_long(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(f"url,page,caption\nhttp://a.org/1,{'long ' * 50_000},a dog\n")
    (line_range,) = line_ranges(path, 9)
    (entry,) = own_lists.read_table(path, "csv", line_range, "url", "caption", quoting=True)
    assert entry.captions == ("a dog",)


def test_quoting_is_an_option_of_both_forms(tmp_path):
    path = tmp_path / "list"
    path.write_text('url\tcaption\nhttp://a.org/1\t"a ""dog"""\n')
    (entry,) = own_lists.read_table(
        path, "tsv", *line_ranges(path, 9), "url", "caption", quoting=True
    )
    assert entry.captions == ('a "dog"',)
    path.write_text('url,caption\nhttp://a.org/1,"a dog\n')
    (entry,) = own_lists.read_table(
        path, "csv", *line_ranges(path, 9), "url", "caption", quoting=False
    )
    assert entry.captions == ('"a dog',)


@pytest.mark.parametrize("header", ["url,url,caption", "caption,url,caption"])
def test_a_column_that_stands_twice_is_refused(tmp_path, header):
    path = tmp_path / "list.csv"
    path.write_text(f"{header}\na,b,c\n")
    names = own_lists.header(path, "csv", True)
    with pytest.raises(ListError, match="several columns are named"):
        own_lists.check_columns(path, names, ["url", "caption"])
