"""ImageNet-21K's archive, plain and gzipped, against tarfile's reading of the same bytes."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dataprep.sources import gzip_pass, seekable_gzip
from dataprep.sources.imagenet21k import ArchiveError, read_synset, synsets
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


def test_the_plain_archive_is_read_as_by_tarfile(archive):
    images = [p for synset in synsets(archive) for p in read_synset(archive, synset)]
    assert {p.name: p.data for p in images} == as_tarfile_reads(archive)
    assert len(images) == 9 * 12


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
