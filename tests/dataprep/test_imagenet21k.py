"""ImageNet-21K's archive, plain and gzipped, against tarfile's reading of the same bytes."""

import bz2
import gzip
import io
import itertools
import lzma
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from dataprep.sources import gzip_pass, imagenet21k, seekable_gzip
from dataprep.sources.imagenet21k import ArchiveError, read_synset, synsets
from dataprep.sources.seekable_gzip import IndexFileError, excerpt
from tests.dataprep.gzip_listing import Listing

RNG = np.random.default_rng(0)


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Nine synsets of images that gzip makes a little smaller; beside it the same gzipped."""
    path = tmp_path_factory.mktemp("archive") / "whole.tar"
    inner = {
        f"n{i:08d}.tar": tar_of({
            f"n{i:08d}_{k}.JPEG": RNG.integers(0, 99, RNG.integers(1, 60_000), np.uint8).tobytes()
            for k in range(12)
        })
        for i in range(9)
    }  # fmt: skip
    path.write_bytes(tar_of(inner | {"README": b"not a synset"}))
    path.with_suffix(".tar.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    return path


@pytest.fixture(autouse=True)
def near_points(monkeypatch):
    """Many points and segments in a small file, several points between refills."""
    monkeypatch.setattr(gzip_pass, "SEGMENT_BYTES", 1 << 19)
    monkeypatch.setattr(seekable_gzip, "SPACING_BYTES", 1 << 16)
    monkeypatch.setattr(seekable_gzip, "_BUFFER_BYTES", 1 << 18)


def as_tarfile_reads(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path, "r:*") as outer:
        for member in outer:
            if member.name.endswith(".tar"):
                with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                    found |= {Path(p.name).stem: inner.extractfile(p).read() for p in inner}
    return found


def read_gzipped(listing: Listing, found: list[imagenet21k.Synset]) -> dict[str, bytes]:
    images = [p for synset in found for p in listing.read(synset)]
    assert not any(image.problem for image in images)
    return {image.name: image.data for image in images}


def test_the_plain_archive_is_read_as_by_tarfile(archive):
    images = [p for synset in synsets(archive) for p in read_synset(archive, synset)]
    assert {p.name: p.data for p in images} == as_tarfile_reads(archive)
    assert len(images) == 9 * 12


MEMBERS = [0, 700, 900_000, 900_001]
"Offsets in the archive at which gzip members begin."


def in_members(data: bytes) -> bytes:
    cuts = [*MEMBERS, len(data)]
    return b"".join(gzip.compress(data[a:b], 1) for a, b in itertools.pairwise(cuts))


def named_members(data: bytes) -> bytes:
    """Members as programs write them that keep the name of a file in a header."""
    out = io.BytesIO()
    for a, b in itertools.pairwise([*MEMBERS, len(data)]):
        with gzip.GzipFile("a name " * 500, "wb", fileobj=out) as member:
            member.write(data[a:b])
    return out.getvalue()


COMPRESSED = {
    "one member": lambda data: gzip.compress(data, 1),
    "several members": in_members,
    "members with names": named_members,
    "an empty member": lambda data: gzip.compress(b"") + in_members(data) + gzip.compress(b""),
    "zeros behind it": lambda data: gzip.compress(data) + bytes(20_000),
    "nothing compressed": lambda data: gzip.compress(data, 0),
}


@pytest.mark.parametrize("segment_bytes", [1 << 17, 1 << 19, 1 << 31])
@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED.keys())
def test_the_gzipped_archive_is_read_as_by_tarfile(
    archive, tmp_path, monkeypatch, compress, segment_bytes
):
    monkeypatch.setattr(gzip_pass, "SEGMENT_BYTES", segment_bytes)
    gzipped = tmp_path / "a.tar.gz"
    gzipped.write_bytes(compress(archive.read_bytes()))
    listing = Listing(gzipped)
    assert listing.synsets() == list(synsets(archive))
    assert read_gzipped(listing, listing.synsets()[::-1]) == as_tarfile_reads(archive)
    assert len(listing.segments) > 5 or segment_bytes > 1 << 17


@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED.keys())
def test_a_pass_that_ended_anywhere_goes_on_to_the_same_listing(archive, tmp_path, compress):
    gzipped = tmp_path / "a.tar.gz"
    gzipped.write_bytes(compress(archive.read_bytes()))
    whole = Listing(gzipped).segments
    for number in range(1, len(whole) + 1):
        assert Listing(gzipped, whole[:number]).segments == whole


def test_a_pass_that_goes_on_reads_only_what_is_left(archive, tmp_path):
    gzipped = archive.with_suffix(".tar.gz")
    whole = Listing(gzipped).segments
    third = whole[2]
    data = bytearray(gzipped.read_bytes())
    first = seekable_gzip.Index(io.BytesIO(third.index)).points[0].compressed
    data[20 : first - 100] = bytes(first - 120)
    path = tmp_path / "read.tar.gz"
    path.write_bytes(data)
    assert Listing(path, whole[:4]).segments == whole
    with pytest.raises(ArchiveError):
        Listing(path)


@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED.keys())
@pytest.mark.parametrize("begun", [0, 2])
def test_a_wrong_checksum_is_found_in_each_member(archive, tmp_path, compress, begun):
    data = archive.read_bytes()
    gzipped = tmp_path / "a.tar.gz"
    gzipped.write_bytes(compress(data))
    segments = Listing(gzipped).segments[:begun]
    found = bytearray(gzipped.read_bytes())
    is_one = zlib.crc32(data).to_bytes(4, "little") in found
    cuts = [0, len(data)] if is_one else [*MEMBERS, len(data)]
    done = segments[-1].position.offset if segments else 0
    for start, stop in itertools.pairwise(cuts):
        at = found.index(zlib.crc32(data[start:stop]).to_bytes(4, "little"))
        found[at] ^= 1
        gzipped.write_bytes(found)
        if stop > done:
            with pytest.raises(ArchiveError, match=r"wrong checksum|CRC"):
                Listing(gzipped, segments)
        found[at] ^= 1


def test_the_end_of_a_truncated_archive_is_not_committed(archive, tmp_path):
    whole = archive.read_bytes()
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(gzip.compress(whole[:-30_000], 1))
    segments: list[imagenet21k.Segment] = []
    for _ in range(2):
        begun = segments[-1] if segments else None
        with pytest.raises(ArchiveError, match=r"truncated|not a complete tar"):
            imagenet21k.index_gzipped(path, segments.append, begun)
    assert segments and not any(segment.position.is_end for segment in segments)


def test_a_range_needs_a_few_points_of_the_index(archive, monkeypatch):
    monkeypatch.setattr(gzip_pass, "SEGMENT_BYTES", 1 << 31)
    listing = Listing(archive.with_suffix(".tar.gz"))
    first, *_, last = listing.synsets()
    sizes = [len(excerpt(listing.indexes(s), s.offset, s.num_bytes)) for s in (first, last)]
    assert max(sizes) < len(listing.segments[0].index) / 3


def test_memory_does_not_grow_with_a_synset(tmp_path, monkeypatch):
    monkeypatch.setattr(seekable_gzip, "SPACING_BYTES", 1 << 20)
    monkeypatch.setattr(seekable_gzip, "_BUFFER_BYTES", 1 << 21)
    image = RNG.bytes(1 << 20)
    path = tmp_path / "large.tar"
    path.write_bytes(tar_of({"n1.tar": tar_of({f"{i}.JPEG": image for i in range(48)})}))
    gzipped = tmp_path / "large.tar.gz"
    gzipped.write_bytes(gzip.compress(path.read_bytes(), 1))
    listing = Listing(gzipped)
    (synset,) = listing.synsets()
    indexes = listing.indexes(synset)
    for read in (read_synset(path, synset), read_synset(gzipped, synset, indexes)):
        tracemalloc.start()
        assert sum(len(p.data) for p in read) == 48 << 20
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 << 20


def test_a_damaged_synset_ends_with_an_image_that_names_the_damage(archive, tmp_path):
    second = list(synsets(archive))[1]
    inner_tar = io.BytesIO(archive.read_bytes()[second.offset :])
    with tarfile.open(fileobj=inner_tar) as inner:
        fifth = inner.getmembers()[4]
    header = second.offset + fifth.offset
    data = bytearray(archive.read_bytes())
    data[header + 148] ^= 1  # of the header's checksum
    path = tmp_path / "damaged.tar"
    path.write_bytes(bytes(data))
    *good, bad = read_synset(path, second)
    assert len(good) == 4 and not any(p.problem for p in good)
    assert bad.name == f"{good[-1].name}+" and f"no header at byte {fifth.offset}" in bad.problem
    assert len(list(read_synset(path, list(synsets(path))[2]))) == 12
    data[header : header + 512] = fifth_that_is_too_long(fifth)
    path.write_bytes(bytes(data))
    *good, bad = read_synset(path, second)
    assert len(good) == 4 and "past the end" in bad.problem


def fifth_that_is_too_long(member: tarfile.TarInfo) -> bytes:
    longer = tarfile.TarInfo(member.name)
    longer.size = 1 << 40
    return longer.tobuf()


def test_an_archive_that_is_damaged_outside_its_synsets_is_refused(archive, tmp_path):
    path = tmp_path / "bad"
    whole = archive.read_bytes()
    third = list(synsets(archive))[2]
    broken = bytearray(whole)
    broken[third.offset - 512 + 148] ^= 1
    cut = whole[: third.offset + 5000]
    for data, words in ((bytes(broken), "no header at byte"), (cut, "bad"), (b"", "empty"),
                        (b"no tar" * 200, "not a complete tar")):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match=words):
            list(synsets(path))
        path.write_bytes(gzip.compress(data))
        with pytest.raises(ArchiveError, match=words):
            Listing(path)
    gzipped = gzip.compress(whole, 1)
    flipped = bytearray(gzipped)
    flipped[len(gzipped) // 2] ^= 255
    for data in (gzipped[: len(gzipped) // 2], bytes(flipped), b"\x1f\x8b" + bytes(99)):
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match="bad"):
            Listing(path)


def test_an_index_of_another_archive_is_refused(archive, tmp_path):
    gzipped = archive.with_suffix(".tar.gz")
    listing = Listing(gzipped)
    synset = listing.synsets()[3]
    other = tmp_path / "other.tar.gz"
    other.write_bytes(gzip.compress(archive.read_bytes()[:9_000]))
    indexes = listing.indexes(synset)
    whole = indexes[0].getvalue()
    with pytest.raises(IndexFileError, match=r"not the index of"):
        list(read_synset(other, synset, indexes))
    for data in (b"", whole[:20], whole[:200], b"GZIDX\x07" + whole[6:], b"x" * 999):
        with pytest.raises(IndexFileError):
            list(read_synset(gzipped, synset, [io.BytesIO(data)]))


def images_of(path: Path) -> dict[str, str | None]:
    return {i.name: i.problem for synset in synsets(path) for i in read_synset(path, synset)}


@pytest.mark.parametrize(
    ("tars", "names"),
    [
        (["train/n01", "val/n01"], ["train/n01/a", "val/n01/a"]),
        (["n01", "val/n01"], ["n01/a", "val/n01/a"]),
        (["./n01", "n02"], ["a", "a"]),
        (["n01", "n01"], ["n01/a", "n01+2/a"]),
    ],
)
def test_tars_of_one_name_give_distinct_ids(tmp_path, tars, names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in tars:
            member, data = tarfile.TarInfo(f"{name}.tar"), tar_of({"a.JPEG": b"x"})
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path = tmp_path / "a.tar"
    path.write_bytes(out.getvalue())
    found = [image.name for synset in synsets(path) for image in read_synset(path, synset)]
    assert found == names
    gzipped = tmp_path / "a.tar.gz"
    gzipped.write_bytes(gzip.compress(out.getvalue()))
    assert Listing(gzipped).synsets() == synsets(path)


def test_images_of_one_name_and_what_is_not_data(tmp_path):
    inner = tar_of({"a.JPEG": b"1", "._a.JPEG": b"x", "b/a.JPEG": b"2", "a.png": b"3",
                    "__MACOSX/a.JPEG": b"x", ".DS_Store": b"x"})  # fmt: skip
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of({"n01.tar": inner, "._n01.tar": b"x", "README": b"y"}))
    assert images_of(path) == {"a": None, "a+2": None, "a+3": None}


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_in_a_synset_is_one_reject_and_a_linked_synset_is_refused(tmp_path, kind):
    link = tarfile.TarInfo("b.JPEG")
    link.type, link.linkname = kind, "elsewhere/a.JPEG"
    inner = io.BytesIO(tar_of({"a.JPEG": b"1"})[:1024] + link.tobuf() + tar_of({"c.JPEG": b"2"}))
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of({"n01.tar": inner.getvalue()}))
    found = images_of(path)
    assert list(found) == ["a", "b", "c"] and "elsewhere/a.JPEG" in found["b"]
    link.name = "n02.tar"
    path.write_bytes(link.tobuf() + tar_of({"n01.tar": b""}))
    with pytest.raises(ArchiveError, match=r"n02\.tar is a link"):
        synsets(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tar_of({"n01/a.JPEG": b"x"}), "expected a tar of one tar per synset"),
        (bz2.compress(tar_of({})), "compressed by bzip2"),
        (lzma.compress(tar_of({})), "compressed by xz"),
    ],
)
def test_another_archive_is_refused_by_name(tmp_path, data, words):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ArchiveError, match=words):
        synsets(tmp_path / "a.tar")
