"""Every reader on mutated files: the good rows come through, each other row is one reject.

The first law is about any damage: a reader raises nothing but the refusal of a whole file, gives
each row one end, and needs little time and memory. The second is about damage of one row: the rows
beside it are those of the whole file. Mutations are drawn from a seed, so that a failure repeats.
``make test-exhaustive`` draws 100,000 of them.
"""

import bz2
import contextlib
import gzip
import io
import itertools
import json
import lzma
import random
import resource
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.schemas import reject, rejects_table
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
from dataprep.sources.annotations import AnnotatedImage, AnnotationError
from dataprep.sources.documents import BadDocument, Document, document_tables
from dataprep.sources.entries import BadEntry, Entry, index_tables
from dataprep.sources.folders import FolderFiles, files_in
from dataprep.sources.imagenet21k import ArchiveError
from dataprep.sources.lines import LineRange, ListError, line_ranges
from dataprep.sources.members import MemberError
from dataprep.sources.zips import open_zips
from dataprep.text import other_encoding
from tests.dataprep.gzip_listing import Listing
from tests.dataprep.test_cc_news import ENGLISH, Crawl, page
from tests.dataprep.test_imagenet21k import tar_of

NUM_EXHAUSTIVE = 100_000
MAX_SECONDS = 5.0
MAX_GROWTH_MB = 400
REFUSALS = (ListError, AnnotationError, ArchiveError, zipfile.BadZipFile, wikipedia.DumpError)

PAIRS = [(f"http://a.org/{i}.jpg", f"caption {i}") for i in range(6)]
TSV = "".join(f"{url}\t{caption}\n" for url, caption in PAIRS).encode()
CSV = ("url,caption\n" + "".join(f'{url},"a ""{c}"", b"\n' for url, c in PAIRS)).encode()
JSONL = "".join(
    json.dumps({"url": url, "caption": [caption], "text": caption}) + "\n" for url, caption in PAIRS
).encode()
SBU = json.dumps({"image_urls": [p[0] for p in PAIRS], "captions": [p[1] for p in PAIRS]}).encode()
HASHES = "".join(f"{url}\t{'ab' * 32}\tmd5\n" for url, _ in PAIRS).encode()
SAMPLES = tar_of({
    f"a.b/{i}.{extension}": data * (i + 1)
    for i in range(4)
    for extension, data in (("jpg", b"\xff\xd8" * 90), ("txt", b"dog "), ("json", b" "))
})  # fmt: skip
SYNSET = tar_of({f"n1_{i}.JPEG": bytes([i]) * (300 * i) for i in range(4)})
SYNSETS = tar_of({f"{folder}/n1.tar": SYNSET for folder in ("train", "val")})
TEXTS = tar_of({f"{i}.txt": b"A text. " * (9 * i) for i in range(4)})
KARPATHY = [
    {"cocoid": i, "filepath": "a", "filename": f"{i}.jpg", "split": "train",
     "sentences": [{"raw": f"dog {i}"}]}
    for i in range(5)
]  # fmt: skip
GENOME = [{"id": i, "regions": [{"phrase": f"dog {i}"}]} for i in range(5)]
PAGE = (
    b"<page><title>A</title><ns>0</ns><id>1</id><revision><text>'''A''' is [[b|c]]. {{d}}"
    b"</text></revision></page>"
)  # fmt: skip


def karpathy(images: list[Any]) -> bytes:
    return json.dumps({"images": images}).encode()


def parquet() -> bytes:
    out = io.BytesIO()
    table = pa.table({"url": [p[0] for p in PAIRS], "caption": [[p[1]] for p in PAIRS],
                      "text": [p[1].encode() for p in PAIRS]})  # fmt: skip
    pq.write_table(table, out, row_group_size=3)
    return out.getvalue()


def zip_of_images() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"train2014/{i}.jpg", bytes([i]) * 500)
    return out.getvalue()


def warc() -> bytes:
    crawl = Crawl(Path("x"))
    crawl.add(page(ENGLISH, "en"))
    crawl.add(page(ENGLISH), Transfer_Encoding="chunked")
    return crawl.out.getvalue()


def table(path: Path, line_range: LineRange, form: Any, quoting: bool) -> Iterator[Any]:
    return own_lists.read_table(path, form, line_range, "url", "caption", quoting=quoting)


def by_lines(read: Callable[..., Any], *args: Any, **named: Any) -> Callable[[Path], list[Any]]:
    """Return a reader of a whole file of lines; it checks that each line has one end."""

    def all_lines(path: Path) -> list[Any]:
        found = []
        for line_range in line_ranges(path, 4):
            rows = list(read(path, line_range, *args, **named))
            has_header = read is table and line_range.first_line == 1
            assert len(rows) == line_range.num_lines - has_header
            found += rows
        return found

    return all_lines


def by_sbu_lines(path: Path) -> list[Any]:
    ranges = sbu.paired_ranges(path, path, 4)
    found = [row for line_range in ranges for row in sbu.read_lines_form(path, path, line_range)]
    assert len(found) == sum(urls.num_lines for urls, _ in ranges)
    return found


def by_row_groups(read: Callable[..., Any], *columns: str) -> Callable[[Path], list[Any]]:
    def all_groups(path: Path) -> list[Any]:
        file = parquet_files.open_parquet(path)
        own_lists.check_columns(path, file.schema_arrow.names, columns)
        if problem := parquet_files.wrong_types(file.schema_arrow, columns, ["caption"]):
            raise ListError(problem)
        groups = range(file.num_row_groups)
        return [row for group in groups for row in read(path, group, 1, *columns)]

    return all_groups


def by_hashes(path: Path) -> list[Any]:
    counts = hash_list.make_table(path, path.parent)
    assert sum(counts) == sum(line_range.num_lines for line_range in line_ranges(path, 9))
    return []


def by_synsets(path: Path) -> list[Any]:
    if path.read_bytes()[:2] != b"\x1f\x8b":
        found = imagenet21k.synsets(path)
        return [image for synset in found for image in imagenet21k.read_synset(path, synset)]
    listing = Listing(path)
    return [image for synset in listing.synsets() for image in listing.read(synset)]


def by_members(path: Path) -> list[Any]:
    archives, found = open_zips([path]), []
    for name in [*archives.names, "missing.jpg"]:
        try:
            found.append((name, archives.read(name)))
        except MemberError as error:
            rejects_table([reject(name, "s", error.reason, error.detail)])
            found.append((name, error.reason))
    return found


def by_files(path: Path) -> list[Any]:
    (path.parent / "in").mkdir(exist_ok=True)
    files, names = FolderFiles(path.parent / "in"), []
    path.replace(path.parent / "in" / "1.txt")
    (path.parent / "in" / "2.txt").write_bytes(b"good")
    names = files_in(path.parent / "in", "*")
    assert names == ["1.txt", "2.txt"] and files.read("2.txt") == b"good"
    found = list(documents.read_text_files(path.parent / "in", names))
    assert len(found) == 2 and found[1] == Document("2.txt", "good")
    return found


def by_streams(path: Path) -> list[Any]:
    return list(wikipedia.read_streams(path, wikipedia.StreamRange(0, max(path.stat().st_size, 1))))


@dataclass(frozen=True)
class Case:
    """A reader, and a good file of its format."""

    good: bytes
    read: Callable[[Path], list[Any]]
    weight: float = 1.0
    "How many of the drawn mutations it gets; slow readers get fewer."


def packed(case: Case, pack: Callable[[bytes], bytes]) -> Case:
    return Case(pack(case.good), case.read, case.weight)


CASES = {
    "cc3m": Case(TSV, by_lines(conceptual.read_cc3m)),
    "cc12m": Case(TSV, by_lines(conceptual.read_cc12m)),
    "csv": Case(CSV, by_lines(table, "csv", True)),
    "tsv": Case(b"url\tcaption\n" + TSV, by_lines(table, "tsv", False)),
    "jsonl_pairs": Case(JSONL, by_lines(own_lists.read_jsonl, "url", "caption")),
    "jsonl": Case(JSONL, by_lines(documents.read_jsonl, "text")),
    "txt": Case(TSV, by_lines(documents.read_text_lines)),
    "sbu": Case(TSV, by_sbu_lines),
    "sbu_json": Case(SBU, lambda path: list(sbu.read_json_form(path, 0, 99))),
    "hashes": Case(HASHES, by_hashes),
    "parquet": Case(parquet(), by_row_groups(documents.read_parquet, "text")),
    "parquet_pairs": Case(parquet(), by_row_groups(own_lists.read_parquet, "url", "caption")),
    "webdataset": Case(SAMPLES, lambda path: list(webdataset.read_tar(path))),
    "imagenet21k": Case(SYNSETS, by_synsets),
    "zips": Case(zip_of_images(), by_members),
    "files": Case(b"A text.\n" * 9, by_files),
    "coco": Case(karpathy(KARPATHY), lambda path: list(coco.read_coco(path, ["train"]))),
    "flickr30k": Case(karpathy(KARPATHY), lambda path:
        list(flickr30k.read_flickr30k(path, ["train"]))),
    "visual_genome": Case(json.dumps(GENOME).encode(), lambda path:
        list(visual_genome.read_visual_genome(path, [], captions=2, phrases=1, seed=0))),
    "openwebtext": Case(lzma.compress(TEXTS),
                        lambda path: list(openwebtext.read_archive(path.parent, path.name))),
    "wikipedia": Case(bz2.compress(PAGE * 3), by_streams),
    "cc_news": Case(warc(), lambda path: list(cc_news.read_warc(path.parent, path.name, "en")),
                    weight=0.1),
}  # fmt: skip
COMPRESSORS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
}
CASES |= {
    f"{name} in {form}": packed(CASES[name], pack)
    for name, (form, pack) in itertools.product(("jsonl", "cc12m", "webdataset", "coco"),
                                                COMPRESSORS.items())
} | {"imagenet21k in gzip": packed(CASES["imagenet21k"], gzip.compress)}  # fmt: skip


def mutated(good: bytes, rng: random.Random) -> bytes:
    """A file with some bytes altered, then perhaps cut off, joined, or replaced in part."""
    data = bytearray(good)
    for _ in range(rng.randint(0, 4)):
        data[rng.randrange(len(data))] = rng.choice([rng.randrange(256), 0, 0x0A, 0x09, 0xFF])
    first, second = sorted(rng.randint(0, len(data)) for _ in range(2))
    junk = rng.randbytes(rng.randint(0, 60))
    encoding = rng.choice(["utf-16", "utf-16-le", "utf-32", "cp037"])
    return {
        "whole": lambda: bytes(data),
        "cut": lambda: bytes(data[:second]),
        "missing": lambda: bytes(data[:first] + data[second:]),
        "twice": lambda: bytes(data[:second] + data[first:]),
        "junk": lambda: bytes(data[:first]) + junk + bytes(data[second:]),
        "noise": lambda: junk,
        "encoded": lambda: bytes(data).decode("latin-1").encode(encoding, "replace"),
        "zeros": lambda: bytes(data[:first]) + bytes(second - first) + bytes(data[second:]),
    }[
        rng.choice(
            ["whole", "whole", "cut", "missing", "twice", "junk", "noise", "encoded", "zeros"]
        )
    ]()


def check_ends(found: list[Any]) -> None:
    """Check that what a reader yields becomes rows and rejects, one for each."""
    entries = [row for row in found if isinstance(row, Entry | BadEntry)]
    tables = index_tables(entries, "s", "file", local_images=True)
    assert sum(table.num_rows for table in tables) == len(entries)
    texts = [row for row in found if isinstance(row, Document | BadDocument)]
    tables = document_tables(texts, "s", "file", 1)
    assert sum(table.num_rows for table in tables) == len(texts)
    for kind in (webdataset.Sample, imagenet21k.Image, AnnotatedImage):
        names = [row.name for row in found if isinstance(row, kind)]
        assert len(set(names)) == len(names) and all(name.encode() for name in names if name)


def draw(name: str, num_mutations: int, folder: Path) -> tuple[int, int, float]:
    """Read mutated files; return how many were read and refused, and the longest time."""
    case, rng = CASES[name], random.Random(name)
    num_refused, longest = 0, 0.0
    for number in range(num_mutations):
        path = folder / f"file-{number % 2}"
        data = mutated(case.good, rng)
        path.write_bytes(data)
        started = time.perf_counter()
        try:
            check_ends(case.read(path))
        except REFUSALS as error:
            assert "\n" not in str(error).strip() or isinstance(error, AnnotationError | ListError)
            num_refused += 1
        except BaseException:
            (folder / "failing").write_bytes(data)
            raise
        longest = max(longest, time.perf_counter() - started)
    return num_mutations, num_refused, longest


@pytest.mark.parametrize("name", CASES)
def test_no_mutated_file_ends_a_reader(name, tmp_path):
    draw(name, 4 if CASES[name].weight < 1 else 25, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_no_mutated_file_of_many_ends_a_reader(name, tmp_path, capsys):
    total = sum(case.weight for case in CASES.values())
    share = round(NUM_EXHAUSTIVE * CASES[name].weight / total)
    draw(name, 20, tmp_path)  # what is imported and cached once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_read, num_refused, longest = draw(name, share, tmp_path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        print(f"\n{name}: {num_read} files, {num_refused} refused, "  # noqa: T201
              f"longest {longest:.2f} s, {grown:.0f} MB more")  # fmt: skip
    assert longest < MAX_SECONDS and grown < MAX_GROWTH_MB


LINE_CASES = ["cc3m", "cc12m", "csv", "tsv", "jsonl_pairs", "jsonl", "txt"]


@pytest.mark.parametrize("name", LINE_CASES)
def test_a_bad_line_harms_no_other(name, tmp_path):
    case, rng = CASES[name], random.Random(name)
    path = tmp_path / "file"
    path.write_bytes(case.good)
    good, lines = case.read(path), case.good.split(b"\n")[:-1]
    first = len(lines) - len(good)
    for _ in range(60):
        row = rng.randrange(len(good))
        bad = mutated(lines[first + row], rng).replace(b"\n", b" ")[:200].replace(b"\0", b"\1")
        if row == 0 and other_encoding(bad):
            continue  # the file is refused by name
        path.write_bytes(b"\n".join([*lines[: first + row], bad, *lines[first + row + 1 :], b""]))
        found = case.read(path)
        assert len(found) == len(good)
        assert found[:row] + found[row + 1 :] == good[:row] + good[row + 1 :]
        check_ends(found)


def anything(rng: random.Random) -> Any:
    """A JSON value."""
    kind = rng.randrange(7)
    if kind < 2:
        keys = ["cocoid", "filepath", "filename", "split", "sentences", "raw", "id", "regions"]
        return {rng.choice(keys): anything(rng) for _ in range(rng.randint(0, 4))}
    if kind == 2:
        return [anything(rng) for _ in range(rng.randint(0, 2))]
    return rng.choice([None, True, -1, 10**30, 1.5, "", "a", "\ud83d", "../a\0b", "train", "val"])


@pytest.mark.parametrize("name", ["coco", "flickr30k", "visual_genome"])
def test_a_bad_entry_harms_no_other(name, tmp_path):
    rng, path = random.Random(name), tmp_path / "file"
    entries: list[Any] = GENOME if name == "visual_genome" else KARPATHY
    path.write_bytes(json.dumps(entries).encode() if entries is GENOME else karpathy(entries))
    good = CASES[name].read(path)
    for _ in range(80):
        row = rng.randrange(len(entries))
        changed: list[Any] = [*entries[:row], anything(rng), *entries[row + 1 :]]
        path.write_bytes(json.dumps(changed).encode() if entries is GENOME else karpathy(changed))
        found = CASES[name].read(path)
        others = [image for image in found if image in good]
        assert others == good[:row] + good[row + 1 :] and len(found) - len(others) <= 1
        check_ends(found)


def members(data: bytes) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        yield from archive


@pytest.mark.parametrize("name", ["webdataset", "imagenet21k"])
def test_altered_bytes_of_a_tar_harm_no_earlier_row(name, tmp_path):
    rng, path = random.Random(name), tmp_path / "file"
    good_data = SAMPLES if name == "webdataset" else SYNSETS
    path.write_bytes(good_data)
    good = CASES[name].read(path)
    for _ in range(120):
        data = bytearray(good_data)
        position = rng.randrange(len(data))
        data[position] ^= rng.randint(1, 255)
        path.write_bytes(bytes(data))
        with contextlib.suppress(ArchiveError):
            found = CASES[name].read(path)
            check_ends(found)
            before = _whole_rows_before(position, name)
            assert found[:before] == good[:before]


def _whole_rows_before(position: int, name: str) -> int:
    """Return the number of rows that end before a byte."""
    if name == "webdataset":
        ends = [member.offset_data + member.size for member in members(SAMPLES)]
        return sum(end <= position - 512 for end in ends[2::3])
    outer = [member.offset_data for member in members(SYNSETS)]
    inner = [member.offset_data + member.size for member in members(SYNSET)]
    headers_intact = all(not (start - 512 <= position < start) for start in outer)
    ends = [start + end for start in outer for end in inner]
    return sum(end <= position - 512 for end in ends) if headers_intact else 0


def test_altered_bytes_of_a_zip_harm_one_member(tmp_path):
    rng, path = random.Random(0), tmp_path / "file"
    data = zip_of_images()
    path.write_bytes(data)
    good = by_members(path)
    directory = data.index(b"PK\1\2")
    for _ in range(120):
        altered = bytearray(data)
        altered[rng.randrange(directory)] ^= rng.randint(1, 255)
        path.write_bytes(bytes(altered))
        found = by_members(path)
        assert len(found) == len(good)
        assert sum(a != b for a, b in zip(found, good, strict=True)) <= 1
