"""Images out of zip archives, by the names that annotations give them."""

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
"What zipfile raises on bytes that are no archive: the last three for forms that it does not read."


class MemberError(ValueError):
    """An image that cannot be read from its archive; ``reason`` is one of this module's."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ZipSet:
    """Several archives that are read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open them; their directories are read, not their images.

        Raises:
            zipfile.BadZipFile: a file is no zip archive; the message names it.
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
        """Of every member."""
        return self._owner.keys()

    def read(self, name: str) -> bytes:
        """Return the bytes of a member, checked against its CRC.

        Raises:
            MemberError: it is not there, or damaged.
        """
        if name not in self._owner:
            raise MemberError(MISSING_FILE, f"{name} is in none of the archives")
        archive = self._owner[name]
        try:
            return archive.read(name)
        except ZIP_DAMAGE as error:
            raise MemberError(DAMAGED_FILE, f"{archive.filename}: {name}: {error}") from None
