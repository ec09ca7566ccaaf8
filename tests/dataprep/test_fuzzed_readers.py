"""Readers on damaged bytes: they name what is damaged and raise only what they document.

Each reader gets arbitrary bytes and mutations of a good file. An exception that its docstring does
not name fails the test. Deadlines catch a reader that hangs.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.sources import (
    cc_news,
    coco,
    conceptual,
    documents,
    flickr30k,
    hash_list,
    imagenet21k,
    openwebtext,
    own_lists,
    parquet_files,
    sbu,
    visual_genome,
    webdataset,
    wikipedia,
)
from dataprep.sources.annotations import AnnotationError
from dataprep.sources.documents import BadDocument, Document
from dataprep.sources.entries import BadEntry, Entry
from dataprep.sources.imagenet21k import ArchiveError, Synset
from dataprep.sources.lines import ListError, line_ranges
from dataprep.sources.members import MemberError
from dataprep.sources.seekable_gzip import IndexFileError
from dataprep.sources.zips import open_zips
from dataprep.text import other_encoding
from tests.dataprep.gzip_listing import Listing
from tests.dataprep.test_cc_news import ENGLISH, Crawl, page
from tests.dataprep.test_imagenet21k import tar_of

fuzzed = settings(
    max_examples=15,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def mutations(draw: st.DrawFn, good: bytes) -> bytes:
    """A file with some bytes replaced, then perhaps cut off, or with a piece twice or missing."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 4))):
        offset = draw(st.integers(0, len(data) - 1))
        data[offset] = draw(st.integers(0, 255))
    first, second = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    kind = draw(st.sampled_from(["whole", "cut", "missing", "twice", "other"]))
    if kind == "cut":
        return bytes(data[:second])
    if kind == "missing":
        return bytes(data[:first] + data[second:])
    if kind == "twice":
        return bytes(data[:second] + data[first:])
    if kind == "other":
        return bytes(data[:first]) + draw(st.binary(max_size=200))
    return bytes(data)


def anything(good: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=600) | mutations(good)


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def parquet_of(rows: dict[str, list[str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(rows), out)
    return out.getvalue()


def warc() -> bytes:
    crawl = Crawl(Path("x"))
    crawl.add(page(ENGLISH, "en"))
    crawl.add(page(ENGLISH), Content_Encoding="gzip")
    crawl.add(page(ENGLISH), Transfer_Encoding="chunked")
    return crawl.out.getvalue()


TEXTS = tar_of({f"{i}.txt": b"A text. " * (9 * i) for i in range(4)})
SAMPLES = tar_of({
    f"{i}.{extension}": data
    for i in range(3)
    for extension, data in (("jpg", b"\xff\xd8" * 400), ("txt", b"a dog"), ("json", b'{"a": 1}'))
})  # fmt: skip
PAIRS = {"url": [f"http://a.org/{i}" for i in range(5)], "caption": ["one"] * 5}
SBU = json.dumps({"image_urls": PAIRS["url"], "captions": PAIRS["caption"]}).encode()
CSV = ("url,caption\n" + "\n".join(f'{u},"a ""b"", c"' for u in PAIRS["url"])).encode()
JSONL = b"\n".join(json.dumps({"url": u, "caption": "c", "text": "t"}).encode() for u in "abc")
SYNSET = tar_of({f"n1_{i}.JPEG": bytes([i]) * (700 * i) for i in range(5)})
SYNSETS = tar_of({f"n{i}.tar": SYNSET for i in range(3)})
KARPATHY = json.dumps({
    "images": [{"cocoid": 1, "filepath": "a", "filename": "b", "split": "train",
                "sentences": [{"raw": "a dog"}]}] * 2,
}).encode()  # fmt: skip
GENOME = json.dumps([{"id": i, "regions": [{"phrase": "a dog"}]} for i in range(3)]).encode()
PAGES = (
    b"<page><title>A</title><ns>0</ns><id>1</id><revision><text>'''A''' is [[b|c]]. {{d}}"
    b"</text></revision></page>"
)  # fmt: skip


def entries_of(found: object) -> list[Entry | BadEntry]:
    read = list(found)  # type: ignore[call-overload]
    assert all(isinstance(entry, Entry | BadEntry) for entry in read)
    return read


def documents_of(found: object) -> list[Document | BadDocument]:
    read = list(found)  # type: ignore[call-overload]
    assert all(isinstance(document, Document | BadDocument) for document in read)
    rows, rejects = documents.document_tables(read, "s", "file", 1)
    assert rows.num_rows + rejects.num_rows == len(read)
    return read


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "file"


@fuzzed
@given(data=anything(SAMPLES))
def test_webdataset(file, data):
    file.write_bytes(data)
    samples = list(webdataset.read_tar(file))
    assert sum(sample.reason == webdataset.DAMAGED_TAR for sample in samples) <= 1
    if not data:
        assert samples[0].reason


@fuzzed
@given(data=anything(lzma.compress(TEXTS)) | anything(TEXTS).map(lzma.compress))
def test_openwebtext(file, data):
    file.write_bytes(data)
    documents_of(openwebtext.read_archive(file.parent, file.name))


@fuzzed
@given(data=anything(warc()) | anything(gzip.decompress(warc())).map(gzip.compress))
def test_cc_news(file, data):
    file.write_bytes(data)
    assert documents_of(cc_news.read_warc(file.parent, file.name, "en")) or data


@settings(fuzzed, max_examples=8)
@given(
    body=anything(page(ENGLISH).encode()) | st.text(max_size=300).map(str.encode),
    charset=st.sampled_from([None, "utf-8", "utf-16", "no-such", "idna", "zlib_codec", "\0"]),
    said=st.sampled_from([None, "en", "de"]),
)
def test_a_page(body, charset, said):
    documents_of([cc_news.read_page("d", body, charset, said, "en")])


@fuzzed
@given(data=anything(SYNSETS))
def test_the_list_of_synsets(file, data):
    file.write_bytes(data)
    with contextlib.suppress(ArchiveError):
        for synset in imagenet21k.synsets(file):
            list(imagenet21k.read_synset(file, synset))
    file.write_bytes(gzip.compress(data))
    with contextlib.suppress(ArchiveError):
        listing = Listing(file)
        for synset in listing.synsets():
            listing.read(synset)


@fuzzed
@given(data=anything(gzip.compress(SYNSETS)))
def test_a_gzipped_archive(file, data):
    file.write_bytes(data)
    with contextlib.suppress(ArchiveError):
        listing = Listing(file)
        for synset in listing.synsets():
            listing.read(synset)


@fuzzed
@given(data=anything(SYNSET), after=st.sampled_from([b"", bytes(1024), SYNSET]))
def test_a_synset_gives_its_images_up_to_the_damage(file, data, after):
    file.write_bytes(data + after)
    images = list(imagenet21k.read_synset(file, Synset("n1", 0, len(data))))
    assert all(image.problem is None for image in images[:-1])
    assert sum(len(image.data) for image in images) <= len(data)
    if data == SYNSET:
        assert len(images) == 5 and images[-1].problem is None
    elif data:
        assert images or not data[:512].strip(b"\0")


@fuzzed
@given(seed=st.data())
def test_an_index_that_is_damaged(file, seed):
    file.write_bytes(gzip.compress(SYNSETS))
    listing = Listing(file)
    data = seed.draw(anything(listing.segments[0].index))
    with contextlib.suppress(IndexFileError):
        list(imagenet21k.read_synset(file, listing.synsets()[0], [io.BytesIO(data)]))


@fuzzed
@given(data=anything(zip_of({"a.jpg": b"image" * 90, "b.jpg": b"\0" * 900})))
def test_zips(file, data):
    file.write_bytes(data)
    with contextlib.suppress(zipfile.BadZipFile):
        archives = open_zips([file])
        for name in [*archives.names, "missing.jpg"]:
            with contextlib.suppress(MemberError):
                archives.read(name)


@fuzzed
@given(pages=anything(PAGES * 2), stream=anything(bz2.compress(PAGES)))
def test_wikipedia(file, pages, stream):
    for data in (bz2.compress(pages), stream):
        file.write_bytes(data)
        documents_of(wikipedia.read_streams(file, wikipedia.StreamRange(0, len(data))))


@fuzzed
@given(index=anything(bz2.compress(b"0:1:A\n600:2:B\n")) | st.binary().map(bz2.compress))
def test_the_index_of_wikipedia(file, index):
    file.write_bytes(bytes(900))
    (file.parent / "index").write_bytes(index)
    with contextlib.suppress(wikipedia.DumpError):
        for stream_range in wikipedia.stream_ranges(file, file.parent / "index", 1):
            documents_of(wikipedia.read_streams(file, stream_range))


@fuzzed
@given(data=anything(SBU))
def test_sbu(file, data):
    file.write_bytes(data)
    with contextlib.suppress(ListError):
        assert len(entries_of(sbu.read_json_form(file, 0, 99))) == len(sbu.json_lists(file)[0])
    with contextlib.suppress(ListError):
        for ranges in sbu.paired_ranges(file, file, 2):
            entries_of(sbu.read_lines_form(file, file, ranges))


@fuzzed
@given(data=anything(CSV) | anything(JSONL))
def test_lists_and_documents_of_lines(file, data):
    file.write_bytes(data)
    if other_encoding(data):
        return
    for line_range in line_ranges(file, 3):
        for reader in (conceptual.read_cc3m, conceptual.read_cc12m):
            assert len(entries_of(reader(file, line_range))) == line_range.num_lines
        assert (
            len(documents_of(documents.read_text_lines(file, line_range))) == line_range.num_lines
        )
        assert (
            len(documents_of(documents.read_jsonl(file, line_range, "text")))
            == line_range.num_lines
        )
        found = entries_of(own_lists.read_jsonl(file, line_range, "url", "caption"))
        assert len(found) == line_range.num_lines
        for form in ("csv", "tsv"):
            with contextlib.suppress(ListError):
                read = own_lists.read_table(
                    file, form, line_range, "url", "caption", quoting=form == "csv"
                )
                found = entries_of(read)
                assert len(found) == line_range.num_lines - (line_range.first_line == 1)
    documents_of(documents.read_text_files(file.parent, [file.name]))


@fuzzed
@given(data=anything(b"http://a.org/%d\t" % 1 + b"ab" * 32 + b"\tmd5\nhttp://b.org\t\t\n"))
def test_the_hash_list(file, data):
    file.write_bytes(data)
    with contextlib.suppress(ListError):  # another kind of file, by its first bytes
        num_lines = sum(line_range.num_lines for line_range in line_ranges(file, 9))
        assert sum(hash_list.make_table(file, file.parent)) == num_lines


@fuzzed
@given(data=anything(parquet_of(PAIRS)))
def test_parquet(file, data):
    file.write_bytes(data)
    with contextlib.suppress(ListError):
        opened = parquet_files.open_parquet(file)
        own_lists.check_columns(file, opened.schema_arrow.names, ["url", "caption"])
        for group in range(opened.num_row_groups):
            entries_of(own_lists.read_parquet(file, group, 1, "url", "caption"))
            documents_of(documents.read_parquet(file, group, 1, "caption"))


@fuzzed
@given(data=anything(KARPATHY) | anything(GENOME) | anything(zip_of({"a.json": GENOME})))
def test_annotations(file, data):
    file.write_bytes(data)
    readers: list[Callable[[], object]] = [
        lambda: list(coco.read_coco(file, ["train"])),
        lambda: coco.evaluation_ids(file),
        lambda: list(flickr30k.read_flickr30k(file, ["test"])),
        lambda: visual_genome.coco_ids(file),
        lambda: list(visual_genome.read_visual_genome(file, [], captions=2, phrases=2, seed=0)),
    ]
    for reader in readers:
        with contextlib.suppress(AnnotationError):
            reader()


@pytest.mark.parametrize("size", [-512, -1, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE,
                                  tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])  # fmt: skip
def test_a_header_with_an_absurd_size_is_damage(file, kind, size):
    member = tarfile.TarInfo("a.jpg")
    member.size, member.type = size, kind
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    file.write_bytes(tar_of({"0.jpg": b"x"})[:1024] + bytes(header) + bytes(2048))
    *_, last = webdataset.read_tar(file)
    assert last.reason or kind == tarfile.DIRTYPE
    data = file.read_bytes()
    *_, last = imagenet21k.read_synset(file, Synset("n1", 0, len(data)))
    assert last.problem or kind == tarfile.DIRTYPE


def test_damage_behind_a_whole_sample_does_not_take_it_along(tmp_path):
    members = {"1.jpg": b"one", "1.txt": b"a caption", "2.jpg": b"two", "2.txt": b"another"}
    data = bytearray(tar_of(members))
    third = 2 * 1024  # after two members of a header and a block each
    data[third + 148] ^= 1  # of the third header's checksum
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(data))
    first, end = webdataset.read_tar(path)
    assert first == webdataset.Sample("1", b"one", ["a caption"])
    assert end.reason == "damaged_tar" and "header" in end.detail


def test_no_byte_of_an_index_crashes_the_reading_of_its_archive(file):
    file.write_bytes(gzip.compress(SYNSETS, mtime=0))
    listing = Listing(file)
    synset, whole = listing.synsets()[0], listing.segments[0].index
    refused = 0
    for i in range(min(len(whole), 96)):  # the head and the points; windows of zlib follow
        for bits in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[i] ^= bits
            try:
                list(imagenet21k.read_synset(file, synset, [io.BytesIO(bytes(damaged))]))
            except IndexFileError:
                refused += 1
    assert refused
