"""Images in zip archives, read by their member names."""

import lzma
import stat
import zipfile
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

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


class ZipSet:
    """Several archives, read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open the archives and read their directories.

        Raises:
            zipfile.BadZipFile: a file is not a zip archive; the message names it.
        """
        self._archives = []
        for path in paths:
            try:
                self._archives.append(zipfile.ZipFile(path))
            except ZIP_DAMAGE as error:
                raise zipfile.BadZipFile(f"{path}: {error}") from None
        self._members: dict[str, list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]] = {}
        for archive in self._archives:
            for info in archive.infolist():
                for name in _names(info):
                    self._members.setdefault(name, []).append((archive, info))

    @property
    def names(self) -> Collection[str]:
        """Names of all members."""
        return self._members.keys()

    def read(self, name: str) -> bytes:
        """Return the bytes of a member, checked against its CRC.

        Raises:
            MemberError: the member is missing, damaged, too large, a link, or there are several of
                its name.
        """
        found, shown = self._members.get(name, []), safe_name(name)
        archives = _file_names([archive for archive, _ in found])
        if not found:
            archives = _file_names(self._archives)
            raise MemberError(MISSING_FILE, f"{shown} is in none of {archives}")
        if len(found) > 1:
            raise MemberError(DAMAGED_FILE, f"{shown} stands {len(found)} times in {archives}")
        archive, info = found[0]
        try:
            return read_member(archive, info, MAX_FILE_BYTES)
        except MemberError:
            raise
        except ZIP_DAMAGE as error:
            raise MemberError(DAMAGED_FILE, f"{archives}: {shown}: {error}") from None


def _file_names(archives: Sequence[zipfile.ZipFile]) -> str:
    """Return names without folders: what is said of a row does not depend on where files lie."""
    return ", ".join(Path(str(archive.filename)).name for archive in archives)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """Return the bytes of a member, checked against its CRC.

    Raises:
        MemberError: the member is a link.
        one of ZIP_DAMAGE: it is damaged, or larger than ``max_bytes``.
    """
    if info.file_size > max_bytes:
        raise zipfile.BadZipFile(f"{info.file_size} bytes, the limit is {max_bytes}")
    if stat.S_ISLNK(info.external_attr >> 16):
        target = safe_name(archive.read(info).decode("utf-8", "surrogateescape"))
        raise MemberError(LINKED_FILE, f"{safe_name(info.filename)} is a link to {target}")
    return archive.read(info)


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
