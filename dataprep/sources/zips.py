"""Images in zip archives, read by their member names.

Python's ``zipfile`` holds the whole directory of an archive in memory. One worker reads it
(:class:`ZipDirectory`) and keeps the raw records of the members that are needed; any other worker
opens the archive with some of these records as its directory (:class:`ZipSet`).
"""

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from dataprep.sources.members import (
    DAMAGED_FILE,
    LINKED_FILE,
    MAX_FILE_BYTES,
    MISSING_FILE,
    MemberError,
)
from dataprep.sources.names import is_housekeeping, member_path, safe_name

ZIP_DAMAGE: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError),
)
"Raised by zipfile on damaged bytes; the last three also on features that it does not support."
_UTF8_FLAG: Final = 0x800
_RECORD: Final = struct.Struct("<4s24xHHH8xI")
"APPNOTE 4.3.12: signature, lengths of name, extra field and comment, offset of the local header."
_OFFSET_AT: Final = 42
_IN_EXTRA: Final = 0xFFFFFFFF
"Stands for an offset that is in the extra field (zip64)."
_END64: Final = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64: Final = struct.Struct("<4sIQI")
_END: Final = struct.Struct("<4sHHHHIIH")


@dataclass(frozen=True)
class Member:
    """A member of one of several archives."""

    archive: int
    "Number of the archive."
    record: bytes
    "Its record in the central directory, with the offset in the file."


class ZipDirectory:
    """The members of several archives by name."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read the directories.

        Raises:
            zipfile.BadZipFile: a file is not a zip archive; the message names it.
        """
        self._members: dict[str, list[Member]] = {}
        for number, path in enumerate(paths):
            try:
                with zipfile.ZipFile(path) as archive, path.open("rb") as file:
                    file.seek(archive.start_dir)
                    for info in archive.infolist():
                        member = Member(number, _record(file, info))
                        for name in _names(info):
                            self._members.setdefault(name, []).append(member)
            except ZIP_DAMAGE as error:
                raise zipfile.BadZipFile(f"{path}: {error}") from None

    @property
    def members(self) -> Mapping[str, list[Member]]:
        """The members of each name."""
        return self._members


class ZipSet:
    """Some members of several archives, read as one."""

    def __init__(self, paths: Sequence[Path], members: Mapping[str, Sequence[Member]]) -> None:
        """Open the archives.

        Args:
            paths: paths of the archives, as the :class:`ZipDirectory` was made of them.
            members: the members that can be read, by name.

        Raises:
            zipfile.BadZipFile: a file is not the archive that it was; the message names it.
        """
        self._names = [path.name for path in paths]
        self._members: dict[str, list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]] = {}
        for number, path in enumerate(paths):
            mine = [(name, m.record) for name in members for m in members[name]
                    if m.archive == number]  # fmt: skip
            try:
                archive = zipfile.ZipFile(_WithDirectory(path, [record for _, record in mine]))
            except ZIP_DAMAGE as error:
                raise zipfile.BadZipFile(f"{path}: {error}") from None
            for (name, _), info in zip(mine, archive.infolist(), strict=True):
                self._members.setdefault(name, []).append((archive, info))

    @property
    def names(self) -> Collection[str]:
        """Names of the members."""
        return self._members.keys()

    def read(self, name: str) -> bytes:
        """Return the bytes of a member, checked against its CRC.

        Raises:
            MemberError: the member is missing, damaged, too large, a link, or there are several of
                its name.
        """
        found, shown = self._members.get(name, []), safe_name(name)
        if not found:
            raise MemberError(MISSING_FILE, f"{shown} is in none of {', '.join(self._names)}")
        archive, info = found[0]
        archives = ", ".join(Path(str(archive.filename)).name for archive, _ in found)
        if len(found) > 1:
            raise MemberError(DAMAGED_FILE, f"{shown} stands {len(found)} times in {archives}")
        try:
            return read_member(archive, info, MAX_FILE_BYTES)
        except MemberError:
            raise
        except ZIP_DAMAGE as error:
            raise MemberError(DAMAGED_FILE, f"{archives}: {shown}: {error}") from None


def open_zips(paths: Sequence[Path]) -> ZipSet:
    """Open archives with all of their members.

    Raises:
        zipfile.BadZipFile: a file is not a zip archive; the message names it.
    """
    return ZipSet(paths, ZipDirectory(paths).members)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """Return the bytes of a member, checked against its CRC.

    Raises:
        MemberError: the member is a link.
        one of ZIP_DAMAGE: it is damaged, or larger than ``max_bytes``.
    """
    if info.file_size > max_bytes:
        raise zipfile.BadZipFile(f"{info.file_size} bytes, the limit is {max_bytes}")
    check_member(archive, info)
    return archive.read(info)


def check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Check that a member is a file.

    Raises:
        MemberError: the member is a link.
    """
    if stat.S_ISLNK(info.external_attr >> 16):
        target = safe_name(archive.read(info).decode("utf-8", "surrogateescape"))
        raise MemberError(LINKED_FILE, f"{safe_name(info.filename)} is a link to {target}")


def _names(info: zipfile.ZipInfo) -> set[str]:
    """Return the names of a member; none for a folder and for what is not data.

    Programs that write UTF-8 without the flag for it are read by both encodings, and what programs
    write in place of a relative path with slashes (APPNOTE 4.4.17) by that path.
    """
    names = {member_path(info.filename)}
    if not info.flag_bits & _UTF8_FLAG:
        with suppress(UnicodeError):
            names.add(member_path(info.filename.encode("cp437").decode("utf-8")))
    return {name for name in names if name and name[-1] != "/" and not is_housekeeping(name)}


def _record(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """Return the next record of a central directory, which zipfile has read as ``info``.

    An archive behind other data (a program that unpacks it) has offsets that begin at the archive.
    """
    head = file.read(_RECORD.size)
    _, *lengths, offset = _RECORD.unpack(head)
    if info.header_offset < 0:
        raise zipfile.BadZipFile("the beginning of the archive is missing; copy it anew")
    if info.header_offset < _IN_EXTRA:
        head = head[:_OFFSET_AT] + info.header_offset.to_bytes(4, "little")
    elif offset != _IN_EXTRA:
        raise zipfile.BadZipFile("an archive of 4 GB behind other data; write it anew")
    return head + file.read(sum(lengths))


class _WithDirectory:
    """An archive as zipfile reads it, with some records as its central directory."""

    def __init__(self, path: Path, records: Sequence[bytes]) -> None:
        self.name = str(path)  # zipfile takes it as the archive's name
        self._file = path.open("rb")
        start = self._file.seek(0, 2)
        directory = b"".join(records)
        counts = (len(records), len(records), len(directory), start)
        self._tail = b"".join([
            directory,
            _END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, *counts),
            _LOCATOR64.pack(b"PK\6\7", 0, start + len(directory), 1),
            _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _IN_EXTRA, _IN_EXTRA, 0),
        ])  # fmt: skip
        self._start, self._at = start, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        size = self._start + len(self._tail)
        self._at = offset + (0, self._at, size)[whence]
        if self._at < 0:
            raise OSError("a negative offset")
        return self._at

    def read(self, num_bytes: int = -1) -> bytes:
        stop = self._start + len(self._tail)
        if num_bytes >= 0:
            stop = min(stop, self._at + num_bytes)
        data = b""
        if self._at < self._start:
            self._file.seek(self._at)
            data = self._file.read(min(stop, self._start) - self._at)
        if stop > self._start:
            first = max(self._at - self._start, 0)
            data += self._tail[first : stop - self._start]
        self._at += len(data)
        return data

    def close(self) -> None:
        self._file.close()
