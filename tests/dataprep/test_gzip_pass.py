"""ImageNet-21K's gzipped archive: segments of its index, checksums, and a pass that goes on."""

import gc
import gzip
import io
import itertools
import threading
import zlib

import pytest

from dataprep.sources import gzip_pass, imagenet21k, seekable_gzip
from dataprep.sources.imagenet21k import ArchiveError, read_synset, synsets
from dataprep.sources.seekable_gzip import IndexFileError, excerpt
from tests.dataprep.gzip_listing import Listing
from tests.dataprep.test_imagenet21k import archive, as_tarfile_reads, near_points

__all__ = ["archive", "near_points"]


def read_gzipped(listing: Listing, found: list[imagenet21k.Synset]) -> dict[str, bytes]:
    images = [p for synset in found for p in listing.read(synset)]
    assert not any(image.problem for image in images)
    return {image.name: image.data for image in images}


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
    "many zeros behind it": lambda data: gzip.compress(data) + bytes(1 << 20),
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


def test_a_listing_that_fails_leaves_no_thread_to_the_garbage_collector(archive, tmp_path):
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(gzip.compress(b"no header".ljust(512, b"x") + archive.read_bytes()))
    before = set(threading.enumerate())
    gc.disable()
    try:
        with pytest.raises(ArchiveError) as failed:
            Listing(path)
        assert set(threading.enumerate()) <= before, failed
    finally:
        gc.enable()
