"""Images in zip archives, read by their member names."""

import lzma
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

MISSING_FILE: Final = "missing_file"
DAMAGED_FILE: Final = "damaged_file"
ZIP_DAMAGE: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError),
)
"Raised by zipfile on damaged bytes; the last three also on features that it does not support."


class MemberError(ValueError):
    """An image that cannot be read from its archive; ``reason`` is a constant of this module."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


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
        self._owner = {name: zip_ for zip_ in self._archives for name in zip_.namelist()}

    @property
    def names(self) -> Collection[str]:
        """Names of all members."""
        return self._owner.keys()

    def read(self, name: str) -> bytes:
        """Return the bytes of a member, checked against its CRC.

        Raises:
            MemberError: the member is missing or damaged.
        """
        if name not in self._owner:
            archives = ", ".join(str(archive.filename) for archive in self._archives)
            raise MemberError(MISSING_FILE, f"{name} is in none of {archives}")
        archive = self._owner[name]
        try:
            return archive.read(name)
        except ZIP_DAMAGE as error:
            raise MemberError(DAMAGED_FILE, f"{archive.filename}: {name}: {error}") from None
