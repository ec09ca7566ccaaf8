"""Zip archives opened with some of their members, against zipfile's reading of all of them."""

import io
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dataprep.sources.members import MemberError
from dataprep.sources.zips import ZipDirectory, ZipSet

FILES = {f"images/{i}.jpg": np.random.default_rng(i).bytes(i * 500) for i in range(40)}


class Unseekable(io.RawIOBase):
    """A file that is only written forward, as a pipe is: sizes follow the data."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


def by_zipfile(path: Path, method: int = zipfile.ZIP_STORED, *, zip64: bool = False) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = b"a comment"
        for name, data in FILES.items():
            with archive.open(name, "w", force_zip64=zip64) as member:
                member.write(data)


def by_pipe(path: Path) -> None:
    with Unseekable(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)


def by_info_zip(path: Path, *options: str) -> None:
    if shutil.which("zip") is None:
        pytest.skip("Info-ZIP is not installed")
    folder = path.with_suffix(".files")
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    subprocess.run(["zip", "-q", "-r", *options, str(path), "images"], cwd=folder, check=True)


def behind_a_program(path: Path) -> None:
    by_zipfile(path)
    path.write_bytes(b"#!/bin/sh\n" * 99 + path.read_bytes())


def with_offsets_in_extra_fields(path: Path) -> None:
    """Behind a program, with every offset in a zip64 extra field (APPNOTE 4.5.3)."""
    by_zipfile(path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        at, records = archive.start_dir, b""
        for info in archive.infolist():
            name = info.filename.encode()
            extra = struct.pack("<HHQ", 1, 8, info.header_offset)
            head = bytearray(data[at : at + 46])
            head[30:32], head[42:46] = struct.pack("<H", len(extra)), b"\xff" * 4
            records += bytes(head) + name + extra
            at += 46 + len(name)
        end = bytearray(data[at:])
        end[12:16] = struct.pack("<I", len(records))
        path.write_bytes(b"#!/bin/sh\n" * 99 + data[: archive.start_dir] + records + end)


def behind_four_gigabytes(path: Path) -> None:
    """Most of the file is a hole."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, data) in enumerate(FILES.items()):
            if number == 20:
                archive.start_dir += 5 << 30
            archive.writestr(name, data)


WRITERS = {
    "stored": by_zipfile,
    "deflated": lambda path: by_zipfile(path, zipfile.ZIP_DEFLATED),
    "zip64": lambda path: by_zipfile(path, zip64=True),
    "data descriptors": by_pipe,
    "Info-ZIP": by_info_zip,
    "Info-ZIP, data descriptors": lambda path: by_info_zip(path, "-fd"),
    "Info-ZIP, zip64": lambda path: by_info_zip(path, "-fz"),
    "behind a program": behind_a_program,
    "behind a program, zip64": with_offsets_in_extra_fields,
    "more than 4 GB": behind_four_gigabytes,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_some_members_are_read_as_by_zipfile(tmp_path, write):
    path = tmp_path / "a.zip"
    write(path)
    members = ZipDirectory([path]).members
    assert sorted(members) == sorted(FILES)
    with zipfile.ZipFile(path) as whole:
        for some in (list(FILES), list(FILES)[15:25], list(FILES)[39:3:-7], []):
            archives = ZipSet([path], {name: members[name] for name in some})
            assert list(archives.names) == some
            assert all(archives.read(name) == whole.read(name) == FILES[name] for name in some)
    if some := [name for name in FILES if name not in archives.names]:
        with pytest.raises(MemberError, match=r"is in none of a\.zip"):
            archives.read(some[0])


def test_archives_of_four_gigabytes_behind_other_data_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.write(b"#!/bin/sh\n" * 99)
        file.seek(5 << 30)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.jpg", b"1")
    try:
        members = ZipDirectory([path]).members
    except zipfile.BadZipFile as error:
        assert "a.zip" in str(error)
    else:
        assert ZipSet([path], members).read("a.jpg") == b"1"


def test_an_archive_that_has_changed_gives_rejects(tmp_path):
    path = tmp_path / "a.zip"
    by_zipfile(path)
    members = ZipDirectory([path]).members
    path.write_bytes(path.read_bytes()[:1000])
    archives = ZipSet([path], members)
    for name in list(FILES)[5:]:
        with pytest.raises(MemberError) as raised:
            archives.read(name)
        assert raised.value.reason == "damaged_file"
