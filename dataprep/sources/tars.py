"""Files of a tar, streamed in order with one file at a time in memory.

tarfile takes a damaged header for the end of the archive. Here it raises, so that no file goes
missing silently.
"""

import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, Final

from dataprep.sources.seekable_gzip import GZIP_DAMAGE

_DAMAGE: Final = (
    *(tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, zlib.error),
    *GZIP_DAMAGE,
)
"Raised by tarfile on damaged bytes; its documentation names only the first."
_MAX_FILE_BYTES: Final = 1 << 30
_BLOCK_BYTES: Final = 1 << 20


class TarDamage(ValueError):
    """The rest of a tar cannot be read."""


def tar_files(file: Any, num_bytes: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of a tar, from the file's current offset.

    Args:
        file: read forward only; its own exceptions pass through.
        num_bytes: size of the tar, if other bytes may follow it.

    Raises:
        TarDamage: the rest cannot be read.
    """
    forward = Forward(file)
    for member in headers(forward, num_bytes):
        if not member.isreg():
            continue
        if member.issparse():
            raise TarDamage(f"{member.name}: a sparse file")
        yield member.name, _content(forward, member, num_bytes)


def headers(file: Any, num_bytes: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of a tar that begins at offset 0 of ``file``.

    Raises:
        TarDamage: the rest cannot be read.
    """
    watched: Any = file if isinstance(file, Forward) else _Watched(file)
    try:
        with tarfile.open(fileobj=watched, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else memory grows with the archive
                if num_bytes is not None and member.offset >= num_bytes:
                    return
                yield member
    except _DAMAGE as error:
        raise TarDamage(f"{type(error).__name__}: {error}") from None
    if watched.last.strip(b"\0"):
        raise TarDamage(f"no header at byte {watched.tell() - len(watched.last)}")


class _Watched:
    """A file that remembers the last block that was read."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return int(self.file.tell())

    def seek(self, offset: int) -> None:
        """Move to an offset."""
        self.file.seek(offset)

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes."""
        if not 0 <= num_bytes <= _MAX_FILE_BYTES:
            raise tarfile.ReadError(f"a read of {num_bytes} bytes")
        self.last = self.file.read(num_bytes)
        return self.last


class Forward(_Watched):
    """A file that is only read forward; its offsets count from where it stood."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.offset = 0

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self.offset

    def seek(self, offset: int) -> None:
        """Read up to an offset, which may lie behind the end."""
        if offset < self.offset:
            raise tarfile.ReadError(f"a header leads back to byte {offset}")
        while self.offset < offset and self.read(min(offset - self.offset, _BLOCK_BYTES)):
            continue

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes."""
        data = super().read(num_bytes)
        self.offset += len(data)
        return data


def _content(file: Forward, member: tarfile.TarInfo, num_bytes: int | None) -> bytes:
    """Return a file's bytes, which follow its header."""
    end = member.offset_data + member.size
    try:
        if num_bytes is not None and end > num_bytes:
            raise tarfile.ReadError("extends past the end of the tar")
        file.seek(member.offset_data)
        data = file.read(member.size)
    except _DAMAGE as error:
        raise TarDamage(f"{member.name}: {error}") from None
    if len(data) != member.size:
        raise TarDamage(f"{member.name}: truncated, {len(data)} of {member.size} bytes")
    return data
