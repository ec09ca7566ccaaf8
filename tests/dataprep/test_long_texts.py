"""Files that are cut by bytes, and lines and documents that are too long for a worker's memory.

Ranges are compared with lines that are put together one by one; compressed files are written by
Python's own modules and pyarrow.
"""

import bz2
import gzip
import io
import lzma
import random
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.sources import documents, lines, openwebtext, parquet_files, wikipedia
from dataprep.sources.documents import BadDocument, Document, in_chunks
from dataprep.sources.lines import MALFORMED_LINE, TOO_LONG, Line, line_ranges, read_lines
from tests.dataprep.test_corpora import page

COMPRESSORS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("lines") / "list"


def put_together(data: bytes, num_lines: int, num_bytes: int) -> list[list[bytes]]:
    """The lines of each range, each with its end."""
    found: list[list[bytes]] = []
    for line in data.splitlines(keepends=True):
        fits = found and len(found[-1]) < num_lines
        if fits and sum(map(len, found[-1])) + len(line) <= num_bytes:
            found[-1].append(line)
        else:
            found.append([line])
    return found


@given(
    texts=st.lists(st.text("ab", max_size=12).map(str.encode), max_size=30),
    ended=st.booleans(),
    num_lines=st.integers(1, 12),
    num_bytes=st.integers(1, 40),
    block=st.sampled_from([1, 5, 16, 1 << 24]),
)
def test_ranges_hold_as_many_lines_as_fit(path, texts, ended, num_lines, num_bytes, block):
    data = b"\n".join(texts) + b"\n" * ended
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BLOCK_BYTES", block)
        patch.setattr(lines, "_READ_BYTES", block)
        ranges = line_ranges(path, num_lines, num_bytes)
        found = [[line.text for line in read_lines(path, each)] for each in ranges]
        numbers = [line.number for each in ranges for line in read_lines(path, each)]
        whole = [line.text for line in read_lines(path)]
    expected = put_together(data, num_lines, num_bytes)
    assert [data[r.offset : r.offset + r.num_bytes] for r in ranges] == list(
        map(b"".join, expected)
    )
    assert [r.num_lines for r in ranges] == list(map(len, expected))
    assert found == [[line.decode().removesuffix("\n") for line in each] for each in expected]
    assert numbers == list(range(1, len(whole) + 1))
    assert whole == [text for each in found for text in each]


LENGTHS = [3, 10, 11, 10, 0, 25, 10]
"Lengths of lines, of which 10 is the largest that is read."


@pytest.mark.parametrize("program", [None, *COMPRESSORS])
@pytest.mark.parametrize("read_bytes", [1, 4, 11, 1 << 20])
@pytest.mark.parametrize("ended", [True, False])
def test_a_line_beyond_the_limit_is_one_reject(tmp_path, monkeypatch, program, read_bytes, ended):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10)
    monkeypatch.setattr(lines, "_READ_BYTES", read_bytes)
    data = b"\n".join(b"x" * n for n in LENGTHS) + b"\n" * ended
    file = tmp_path / "list"
    file.write_bytes(COMPRESSORS[program](data) if program else data)
    for found in (
        list(read_lines(file)),
        [x for r in line_ranges(file, 2) for x in read_lines(file, r)],
    ):
        assert [line.number for line in found] == [1, 2, 3, 4, 5, 6, 7]
        assert [line.reason if line.problem else len(line.text) for line in found] == [
            3, 10, TOO_LONG, 10, 0, TOO_LONG, 10
        ]  # fmt: skip
    (first, *_), texts = (
        documents.read_jsonl(file, None, "text"),
        documents.read_text_lines(file, None),
    )
    assert first.reason == MALFORMED_LINE  # no JSON, but not too long
    assert [d.name for d in texts if isinstance(d, BadDocument) and d.reason == TOO_LONG] == [
        "000000003", "000000006"
    ]  # fmt: skip


@pytest.mark.parametrize("program", COMPRESSORS)
@pytest.mark.parametrize("harm", ["none", "cut", "cut short", "altered", "empty"])
def test_a_compressed_file_read_in_a_stream_gives_what_its_ranges_give(tmp_path, program, harm):
    draw = random.Random(3)
    data = b"".join(b"%d %d\n" % (i, draw.getrandbits(90)) for i in range(20_000))
    packed = COMPRESSORS[program](b"" if harm == "empty" else data)
    if harm == "altered":
        middle = len(packed) // 2
        packed = packed[:middle] + bytes([packed[middle] ^ 0x55]) + packed[middle + 1 :]
    elif harm.startswith("cut"):
        packed = packed[: len(packed) // 2 if harm == "cut" else -3]
    file = tmp_path / "list"
    file.write_bytes(packed)
    by_ranges = [line for each in line_ranges(file, 700) for line in read_lines(file, each)]
    streamed = list(read_lines(file))
    assert streamed == by_ranges
    assert harm not in ("none", "empty") or not any(line.problem for line in streamed)
    is_found = harm == "cut" or (harm == "altered" and program != "zstd")  # it may have no sum
    assert not is_found or streamed[-1].problem


def test_two_readers_of_one_compressed_file_do_not_disturb_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "_READ_BYTES", 16)
    file = tmp_path / "list"
    file.write_bytes(gzip.compress(b"".join(b"line %d\n" % i for i in range(100))))
    first, second = line_ranges(file, 50)
    both = list(zip(read_lines(file, first), read_lines(file, second), strict=True))
    assert both == [(Line(i + 1, f"line {i}"), Line(i + 51, f"line {i + 50}")) for i in range(50)]


SIZES = {"small": 30, "exact": 40, "long": 41}


@pytest.mark.parametrize("pack", [None, gzip.compress])
def test_a_text_file_beyond_the_limit_is_a_reject(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 40)
    for name, size in SIZES.items():
        data = random.Random(size).randbytes(size).hex()[:size].encode()
        (tmp_path / name).write_bytes(pack(data) if pack and name == "long" else data)
    (tmp_path / "none").write_bytes(b"")
    found = list(documents.read_text_files(tmp_path, [*SIZES, "none"]))
    assert [type(d) for d in found] == [Document, Document, BadDocument, Document]
    assert found[2].reason == TOO_LONG and "4" in found[2].detail
    assert [len(d.text) for d in found[:2]] == [30, 40] and found[3].text == ""


def test_a_member_of_an_archive_beyond_the_limit_is_a_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(openwebtext, "MAX_DOCUMENT_BYTES", 40)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, size in SIZES.items():
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"x" * size))
        archive.addfile(tarfile.TarInfo("last"))
    (tmp_path / "a.xz").write_bytes(lzma.compress(tar.getvalue()))
    found = list(openwebtext.read_archive(tmp_path, "a.xz"))
    assert [d.name for d in found] == ["a/small", "a/exact", "a/long", "a/last"]
    assert [getattr(d, "reason", None) for d in found] == [None, None, TOO_LONG, None]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_cell_beyond_the_limit_is_a_reject(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 40)
    cells = ["x" * size for size in SIZES.values()] + [None, "last"]
    pq.write_table(pa.table({"n": range(5), "text": pa.array(cells).cast(kind)}), tmp_path / "p")
    found = list(documents.read_parquet(tmp_path / "p", 0, 7, "text"))
    assert [d.name for d in found] == [f"{n:09d}" for n in range(7, 12)]
    reasons = [getattr(d, "reason", None) for d in found]
    assert reasons == [None, None, TOO_LONG, MALFORMED_LINE, None]


def test_a_column_gives_the_same_cells_by_rows_and_at_once(tmp_path):
    cells = [None if i % 7 == 0 else f"text {i} é" for i in range(1000)] + [b"\xff"]
    table = pa.table({"text": pa.array([c.encode() if isinstance(c, str) else c for c in cells])})
    pq.write_table(table, tmp_path / "p")
    at_once = parquet_files.read_cells(tmp_path / "p", 0, ["text"])["text"]
    by_rows = list(parquet_files.read_column(tmp_path / "p", 0, "text", 100))
    assert list(map(repr, by_rows)) == list(map(repr, at_once)) and len(by_rows) == 1001


def test_streams_of_a_dump_are_read_one_by_one(tmp_path, monkeypatch):
    streams = [page(n, "T", f"Text {n} " * 50) for n in range(1, 6)]
    packed = [bz2.compress(stream.encode()) for stream in streams]
    dump = tmp_path / "dump"
    dump.write_bytes(b"".join(packed))
    whole = wikipedia.StreamRange(0, dump.stat().st_size)
    assert [d.name for d in wikipedia.read_streams(dump, whole)] == ["1", "2", "3", "4", "5"]
    dump.write_bytes(b"".join(packed)[:-9])
    *good, bad = wikipedia.read_streams(dump, wikipedia.StreamRange(0, dump.stat().st_size))
    assert [d.name for d in good] == ["1", "2", "3", "4"] and isinstance(bad, BadDocument)
    monkeypatch.setattr(wikipedia, "MAX_DOCUMENT_BYTES", 300)
    (bad,) = wikipedia.read_streams(dump, whole)
    assert "more than 300 bytes" in bad.detail


@pytest.mark.parametrize("most", [1, 2, 99])
@pytest.mark.parametrize("num_bytes", [None, 1, 250, 10**6])
def test_ranges_of_streams_are_bounded_by_number_and_bytes(tmp_path, most, num_bytes):
    starts = [100 * i for i in range(10)]
    dump = tmp_path / "dump"
    dump.write_bytes(bytes(1000))
    (tmp_path / "index").write_bytes(bz2.compress(b"".join(b"%d:1:T\n" % s for s in starts)))
    ranges = wikipedia.stream_ranges(dump, tmp_path / "index", most, num_bytes)
    assert sum(r.num_bytes for r in ranges) == 1000
    size = max(min(most, (num_bytes or 10**6) // 100), 1)
    assert [r.offset for r in ranges] == starts[::size]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], [[]]),
        ([0], [[0]]),
        ([5, 5], [[5, 5]]),
        ([5, 6], [[5], [6]]),
        ([11, 1, 9], [[11], [1, 9]]),
        ([1, 30, 1], [[1], [30], [1]]),
    ],
)
def test_documents_are_handed_on_in_lists_that_fit(sizes, expected):
    chunks = in_chunks((Document("d", "x" * size) for size in sizes), 10)
    assert [[len(d.text) for d in chunk] for chunk in chunks] == expected
