"""Folders of files: links are followed, circles end, and whatever cannot be read has a name."""

import os
import socket

import pytest

from dataprep.sources import folders
from dataprep.sources.folders import FolderFiles, files_in
from dataprep.sources.lines import ListError
from dataprep.sources.members import MemberError
from orchestration.fingerprint import file_digest


@pytest.fixture
def folder(tmp_path):
    """A data set of links: a class, a file, a broken link, circles, and what is not data."""
    real, blobs, data = (tmp_path / name for name in ("real", "blobs", "set"))
    for path in (real / "cat", blobs, data / "dog"):
        path.mkdir(parents=True)
    (real / "cat" / "1.jpg").write_bytes(b"cat 1")
    (blobs / "ab12").write_bytes(b"dog 2")
    (data / "dog" / "1.jpg").write_bytes(b"dog 1")
    (data / "dog" / "2.jpg").symlink_to("../../blobs/ab12")
    (data / "dog" / "3.jpg").symlink_to("../../blobs/gone")
    (data / "dog" / "self.jpg").symlink_to("self.jpg")
    (data / "dog" / "up").symlink_to("..")
    (data / "cat").symlink_to("../real/cat")
    for name in ("._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (data / name).write_bytes(b"x")
    (data / "__MACOSX").mkdir()
    (data / "__MACOSX" / "1.jpg").write_bytes(b"x")
    return data


def outcomes(folder) -> dict[str, str]:
    files, found = FolderFiles(folder), {}
    for name in files_in(folder, "*"):
        try:
            found[name] = files.read(name).decode()
        except MemberError as error:
            found[name] = error.reason
    return found


def test_links_are_followed_and_what_they_lack_is_a_reject(folder):
    assert outcomes(folder) == {
        "cat/1.jpg": "cat 1", "dog/1.jpg": "dog 1", "dog/2.jpg": "dog 2",
        "dog/3.jpg": "linked_file", "dog/self.jpg": "linked_file", "dog/up": "linked_file",
    }  # fmt: skip
    for name, target in (("dog/3.jpg", "../../blobs/gone"), ("dog/up", "..")):
        with pytest.raises(MemberError, match=f"is a .*link to {target}"):
            FolderFiles(folder).read(name)


def test_files_that_are_not_regular_are_rejects(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        (tmp_path / "link.jpg").symlink_to("pipe.jpg")
        (tmp_path / "device.jpg").symlink_to("/dev/zero")
        (tmp_path / "large.jpg").write_bytes(b"xx")
        monkeypatch.setattr(folders, "MAX_FILE_BYTES", 1)
        assert outcomes(tmp_path) == {
            "pipe.jpg": "damaged_file", "socket.jpg": "damaged_file", "large.jpg": "damaged_file",
            "link.jpg": "linked_file", "device.jpg": "linked_file",
        }  # fmt: skip


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\0b", "", "gone.jpg"])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path, name):
    (tmp_path / "x").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    with pytest.raises(MemberError):
        FolderFiles(tmp_path / "in").read(name)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "holds nothing"),
        (["shard.tar.lz4"], "holds shard.tar.lz4"),
        ([f"{i}.bin" for i in range(7)], "0.bin, 1.bin, 2.bin, 3.bin, 4.bin and 2 more"),
        ([".hidden.tar"], "holds nothing"),
    ],
)
def test_a_folder_without_such_files_says_what_it_holds(tmp_path, names, words):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ListError, match=words):
        files_in(tmp_path, "*.tar")


def test_an_empty_folder_of_any_files_says_what_to_do(tmp_path):
    with pytest.raises(ListError, match=r"the folder holds no files; correct the path$"):
        files_in(tmp_path, "*")


def test_a_digest_sees_changes_behind_links(folder):
    digests = {file_digest(folder)}
    for path in ("real/cat/1.jpg", "blobs/ab12"):
        (folder.parent / path).write_bytes(b"other")
        digests.add(file_digest(folder))
    (folder.parent / "real" / "cat" / "new.jpg").write_bytes(b"x")
    digests.add(file_digest(folder))
    (folder.parent / "blobs" / "gone").write_bytes(b"no longer broken")
    digests.add(file_digest(folder))
    assert len(digests) == 5
    assert file_digest(folder) in digests


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff", b"a\nb"])
def test_a_digest_takes_any_name(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    before = file_digest(tmp_path)
    (tmp_path / os.fsdecode(name)).write_bytes(b"y")
    assert file_digest(tmp_path) != before
    assert files_in(tmp_path, "*") == [os.fsdecode(name)]


def test_the_ending_of_a_name_counts_in_any_case(tmp_path):
    for name in ("a.txt", "B.TXT", "c.Txt", "d.text"):
        (tmp_path / name).write_text("x")
    assert files_in(tmp_path, "*.txt") == ["B.TXT", "a.txt", "c.Txt"]
