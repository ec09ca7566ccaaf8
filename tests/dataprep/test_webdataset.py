"""WebDataset tars: how files become samples, by the rules of the ``webdataset`` package."""

import bz2
import gzip
import io
import json
import lzma
import subprocess
import tarfile

import pyarrow as pa
import pytest

from dataprep.sources.tars import tar_files
from dataprep.sources.webdataset import Sample, read_tar, split_name
from tests.dataprep.test_imagenet21k import tar_of

PACKAGE = {
    "000.jpg": ("000", "jpg"),
    "train.v1/000.jpg": ("train.v1/000", "jpg"),
    "./a.b/000.left.JPG": ("./a.b/000", "left.JPG"),
    "a/b/c.seg.png": ("a/b/c", "seg.png"),
    "x y.z.w": ("x y", "z.w"),
    "/abs/0.jpg": ("/abs/0", "jpg"),
    "../0.jpg": ("../0", "jpg"),
    "./000.txt": ("./000", "txt"),
}
"Results of ``webdataset.tariterators.base_plus_ext``, version 1.0.2."


@pytest.mark.parametrize(("name", "split"), PACKAGE.items())
def test_names_are_split_as_by_the_package(name, split):
    assert split_name(name) == (split[0].removeprefix("./"), split[1].lower())


def samples_of(tmp_path, members: dict[str, bytes] | bytes) -> list[Sample]:
    path = tmp_path / "a.tar"
    path.write_bytes(members if isinstance(members, bytes) else tar_of(members))
    return list(read_tar(path))


def pair(key: str, caption: str = "a dog") -> dict[str, bytes]:
    return {f"{key}.jpg": key.encode(), f"{key}.txt": caption.encode()}


@pytest.mark.parametrize("folder", ["", "./", "train.v1/", "./train.v1/", "a/b.c/"])
def test_dots_in_a_folder_do_not_cut_the_key(tmp_path, folder):
    found = samples_of(tmp_path, pair(f"{folder}000000") | pair(f"{folder}000001"))
    names = [f"{folder.removeprefix('./')}00000{i}" for i in (0, 1)]
    assert [sample.name for sample in found] == names
    assert all(sample.reason is None for sample in found)


@pytest.mark.parametrize(
    "other",
    ["._000.jpg", "._000.txt", ".DS_Store", "Thumbs.db", "__MACOSX/._000.jpg", "a/desktop.ini",
     "README", "__meta__", "__index__/0.json"],
)  # fmt: skip
def test_what_is_no_sample_does_not_part_one(tmp_path, other):
    first, second = pair("000").items()
    between = io.BytesIO()
    with tarfile.open(fileobj=between, mode="w") as archive:
        for name, data in (first, (other, b"x"), second):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (sample,) = samples_of(tmp_path, between.getvalue())
    assert sample == Sample("000", b"000", ["a dog"])


@pytest.mark.parametrize(
    ("members", "captions"),
    [
        ({"0.jpg": b"", "0.txt": b"one"}, ["one"]),
        ({"0.1.txt": b"one", "0.jpg": b"", "0.2.txt": b"two", "0.json": b'{"caption": "no"}'},
         ["one", "two"]),
        ({"0.jpg": b"", "0.txt": b" ", "0.json": b'{"caption": "from json"}'}, ["from json"]),
        ({"0.jpg": b"", "0.json": b'{"caption": ["a", " ", "b"], "captions": ["c"]}'}, ["a", "b"]),
        ({"0.jpg": b"", "0.json": b'{"caption": null, "captions": ["c"]}'}, ["c"]),
        ({"0.jpg": b"", "0.a.json": b'{"caption": "a"}', "0.b.json": b'{"caption": "b"}'},
         ["a", "b"]),
        ({"0.jpg": b"", "0.json": b'{"caption": "half \\ud83d"}'}, ["half \ufffd"]),
        ({"0.left.jpg": b"", "0.right.jpg": b"x", "0.txt": b"a"}, ["a"]),
        ({"0.left.jpg": b"", "0.left.txt": b"a", "0.right.jpg": b"x"}, ["a"]),
        ({"0.jpg": b"", "0.txt": b"\xef\xbb\xbfwith a mark"}, ["with a mark"]),
    ],
)  # fmt: skip
def test_captions_come_from_texts_before_json(tmp_path, members, captions):
    (sample,) = samples_of(tmp_path, members)
    assert (sample.captions, sample.reason) == (captions, None)


@pytest.mark.parametrize(
    ("members", "reason", "detail"),
    [
        ({"0.txt": b"a"}, "missing_file", "no image"),
        ({"0.jpg": b"x"}, "empty_caption", "no caption"),
        ({"0.jpg": b"x", "0.json": b"{"}, "empty_caption", "0.json"),
        ({"0.jpg": b"x", "0.json": b'{"caption": 3}'}, "empty_caption", "0.json"),
        ({"0.jpg": b"x", "0.json": b"[" * 9999}, "empty_caption", "0.json"),
        ({"0.jpg": b"x", "0.txt": "a dog".encode("utf-16")}, "empty_caption", "UTF-16"),
        ({"0.5.jpg": b"x", "0.5.txt": b"a", "0.6.png": b"y", "0.6.txt": b"b"},
         "several_pairs_of_one_key", "0.5, 0.6"),
    ],
)  # fmt: skip
def test_a_sample_without_one_image_and_a_caption_is_one_reject(tmp_path, members, reason, detail):
    first, bad, last = samples_of(tmp_path, pair("a") | members | pair("z"))
    assert (bad.name, bad.reason) == ("0", reason) and detail in bad.detail
    assert (first.reason, last.reason) == (None, None)


def linked(kind: bytes, name: str = "1.jpg", target: str = "0.jpg") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in {**pair("0"), name: None, "1.txt": b"b", **pair("2")}.items():
            member = tarfile.TarInfo(path)
            if data is None:
                member.type, member.linkname = kind, target
            member.size = len(data or b"")
            archive.addfile(member, io.BytesIO(data or b""))
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(tarfile.LNKTYPE, "linked_file"), (tarfile.SYMTYPE, "linked_file"),
     (tarfile.FIFOTYPE, "damaged_file"), (tarfile.CHRTYPE, "damaged_file")],
)  # fmt: skip
def test_a_link_in_a_tar_is_one_reject_that_names_its_target(tmp_path, kind, reason):
    first, bad, last = samples_of(tmp_path, linked(kind, target="../real/0.jpg"))
    assert (bad.name, bad.reason, first.reason, last.reason) == ("1", reason, None, None)
    assert reason != "linked_file" or "../real/0.jpg" in bad.detail


def test_a_key_that_comes_twice_gives_two_ids(tmp_path):
    members = [*pair("0").items(), *pair("1").items(), *pair("0", "again").items()]
    members += [*pair("0", "a third").items()]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    found = samples_of(tmp_path, out.getvalue())
    assert [sample.name for sample in found] == ["0", "1", "0+2", "0+3"]
    assert [sample.captions for sample in found][2:] == [["again"], ["a third"]]


@pytest.mark.parametrize("members", [{}, {"README": b"x"}, {"._0.jpg": b"x"}])
def test_a_tar_without_samples_is_one_reject(tmp_path, members):
    (only,) = samples_of(tmp_path, members)
    assert only.reason == "missing_file" and "no samples" in only.detail


COMPRESSORS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_compressed_tar_gives_what_the_plain_one_gives(tmp_path, suffix):
    tar = tar_of(pair("0") | {"1.jpg": bytes(range(256)) * 3000, "1.txt": b"noise"})
    assert samples_of(tmp_path, COMPRESSORS[suffix](tar)) == samples_of(tmp_path, tar)
    cut = COMPRESSORS[suffix](tar)[:-20]
    assert samples_of(tmp_path, cut)[-1].reason == "damaged_tar"


def test_a_tar_behind_the_end_of_a_tar_does_not_vanish(tmp_path):
    first, end = samples_of(tmp_path, tar_of(pair("0")) + tar_of(pair("1")))
    assert (first.name, first.reason, end.reason) == ("0", None, "damaged_tar")
    assert "data follow the end" in end.detail


def test_a_file_above_the_limit_is_one_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_files, "__defaults__", (None, 2_000_000))
    members = pair("0") | {"1.jpg": bytes(3_000_000), "1.txt": b"large"} | pair("2")
    first, bad, last = samples_of(tmp_path, members)
    assert (first.reason, bad.reason, last.reason) == (None, "damaged_file", None)
    assert "3000000 bytes, the limit is 2000000" in bad.detail


def test_a_tar_that_gnu_tar_wrote_with_a_hard_link_is_read(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for key in ("0", "1"):
        (folder / f"{key}.txt").write_text(json.dumps(key))
    (folder / "0.jpg").write_bytes(b"image")
    (folder / "1.jpg").hardlink_to(folder / "0.jpg")
    order = ["./0.jpg", "./0.txt", "./1.jpg", "./1.txt"]
    subprocess.run(["tar", "-cf", tmp_path / "a.tar", *order], cwd=folder, check=True)
    first, second = read_tar(tmp_path / "a.tar")
    assert (first.name, first.image, first.reason) == ("0", b"image", None)
    assert (second.name, second.reason) == ("1", "linked_file") and "0.jpg" in second.detail
