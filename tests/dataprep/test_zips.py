"""Zip archives: members that stand twice, are links, are too large, or inflate without end."""

import contextlib
import stat
import zipfile

import pytest

from dataprep.sources import zips
from dataprep.sources.annotations import json_elements
from dataprep.sources.members import MemberError
from dataprep.sources.zips import ZipSet, open_zips


def write(path, members: list[tuple[zipfile.ZipInfo | str, bytes]], **named) -> None:
    with zipfile.ZipFile(path, "w", **named) as archive:
        for name, data in members:
            archive.writestr(name, data)


def reason_of(archives: ZipSet, name: str) -> tuple[str, str]:
    with pytest.raises(MemberError) as raised:
        archives.read(name)
    return raised.value.reason, raised.value.detail


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_one_reject(tmp_path):
    write(tmp_path / "a.zip", [("x.jpg", b"1"), ("y.jpg", b"1"), ("y.jpg", b"2"), ("z.jpg", b"1")])
    write(tmp_path / "b.zip", [("x.jpg", b"1")])
    archives = open_zips([tmp_path / "a.zip", tmp_path / "b.zip"])
    assert archives.read("z.jpg") == b"1"
    for name, file in (("x.jpg", "b.zip"), ("y.jpg", "a.zip")):
        reason, detail = reason_of(archives, name)
        assert reason == "damaged_file" and file in detail and "2 times" in detail
        assert str(tmp_path) not in detail
    assert reason_of(archives, "w.jpg") == ("missing_file", "w.jpg is in none of a.zip, b.zip")


@pytest.mark.parametrize(
    "written", ["a\\x.jpg", "./a/x.jpg", "/a/x.jpg", ".\\a\\x.jpg", "././a/x.jpg"]
)
def test_a_member_is_found_however_its_program_wrote_the_path(tmp_path, written):
    macos = "__MACOSX\\._x.json"
    write(tmp_path / "a.zip", [(written, b"1"), ("b/x.jpg", b"2"), (macos, b"3")])
    archives = open_zips([tmp_path / "a.zip"])
    assert archives.read("a/x.jpg") == b"1" and archives.read("b/x.jpg") == b"2"
    assert set(archives.names) == {"a/x.jpg", "b/x.jpg"}


def test_annotations_are_found_beside_what_a_program_left(tmp_path):
    members = [(".\\captions.json", b"[1]"), ("__MACOSX\\._captions.json", b"x")]
    write(tmp_path / "a.zip", members)
    assert list(json_elements(tmp_path / "a.zip", None, "a list")) == [1]


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_member_above_the_limit_is_one_reject(tmp_path, monkeypatch, method):
    monkeypatch.setattr(zips, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "a.zip"
    write(path, [("large.jpg", bytes(1001)), ("good.jpg", b"x" * 1000)], compression=method)
    archives = open_zips([path])
    assert archives.read("good.jpg") == b"x" * 1000
    assert "1001 bytes, the limit is 1000" in reason_of(archives, "large.jpg")[1]


def test_a_member_that_hides_its_size_is_damaged(tmp_path):
    path = tmp_path / "a.zip"
    write(path, [("bomb.jpg", bytes(50 << 20))], compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\1\2")
    data[central + 24 : central + 28] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    assert reason_of(open_zips([path]), "bomb.jpg")[0] == "damaged_file"


@pytest.mark.parametrize("target", ["../x.jpg", "/etc/passwd", "y.jpg"])
def test_a_link_is_one_reject_that_names_its_target(tmp_path, target):
    info = zipfile.ZipInfo("x.jpg")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    write(tmp_path / "a.zip", [(info, target.encode()), ("y.jpg", b"y")])
    archives = open_zips([tmp_path / "a.zip"])
    reason, detail = reason_of(archives, "x.jpg")
    assert reason == "linked_file" and detail.endswith(target)
    assert archives.read("y.jpg") == b"y"


@pytest.mark.parametrize("name", ["__MACOSX/x.jpg", "._x.jpg", "a/.DS_Store", "a/"])
def test_what_is_not_data_has_no_name(tmp_path, name):
    write(tmp_path / "a.zip", [(name, b""), ("x.jpg", b"x")])
    assert list(open_zips([tmp_path / "a.zip"]).names) == ["x.jpg"]


def test_a_member_without_a_name_does_not_end_the_archive(tmp_path):
    write(tmp_path / "a.zip", [("x.jpg", b"x")])
    data = (tmp_path / "a.zip").read_bytes()
    central = data.index(b"PK\1\2")
    size = bytearray(data)
    size[central + 28 : central + 30] = b"\0\0"  # the length of the name
    size[central + 30 : central + 32] = b"\5\0"  # the name becomes an extra field
    (tmp_path / "b.zip").write_bytes(bytes(size))
    with contextlib.suppress(zipfile.BadZipFile):
        assert list(open_zips([tmp_path / "b.zip"]).names) == []


@pytest.mark.parametrize("num_bytes", [1, 30, 400])
def test_an_archive_whose_beginning_is_missing_is_refused_by_name(tmp_path, num_bytes):
    path = tmp_path / "a.zip"
    write(path, [("x.jpg", bytes(500)), ("y.jpg", b"y")])
    path.write_bytes(path.read_bytes()[num_bytes:])
    with pytest.raises(zipfile.BadZipFile, match=r"a\.zip: the beginning of the archive"):
        open_zips([path])
