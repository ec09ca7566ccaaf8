"""Files out of a tar, one after the other and one at a time in memory.

tarfile takes a header that is none for the end of the archive: here that is damage, so that no
file goes missing in silence.
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
"What tarfile raises on bytes that are no tar: its documentation names the first alone."
_MAX_FILE_BYTES: Final = 1 << 30
_BLOCK_BYTES: Final = 1 << 20


class TarDamage(ValueError):
    """A tar cannot be read from here on."""


def tar_files(file: Any, num_bytes: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of a tar that begins where ``file`` stands.

    Args:
        file: is read forward only; what it raises itself passes through.
        num_bytes: of the tar, where more may follow it.

    Raises:
        TarDamage: what follows cannot be read.
    """
    forward = Forward(file)
    for member in headers(forward, num_bytes):
        if not member.isreg():
            continue
        if member.issparse():
            raise TarDamage(f"{member.name}: a sparse file")
        yield member.name, _content(forward, member, num_bytes)


def headers(file: Any, num_bytes: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of a tar that begins at place 0 of ``file``.

    Raises:
        TarDamage: what follows cannot be read.
    """
    watched: Any = file if isinstance(file, Forward) else _Watched(file)
    try:
        with tarfile.open(fileobj=watched, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # they must not pile up
                if num_bytes is not None and member.offset >= num_bytes:
                    return
                yield member
    except _DAMAGE as error:
        raise TarDamage(f"{type(error).__name__}: {error}") from None
    if watched.last.strip(b"\0"):
        raise TarDamage(f"no header at byte {watched.tell() - len(watched.last)}")


class _Watched:
    """A file that remembers the block it gave last."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""

    def tell(self) -> int:
        """Return the place of the next byte."""
        return int(self.file.tell())

    def seek(self, offset: int) -> None:
        """Go to a place."""
        self.file.seek(offset)

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes."""
        if not 0 <= num_bytes <= _MAX_FILE_BYTES:
            raise tarfile.ReadError(f"{num_bytes} bytes in one piece")
        self.last = self.file.read(num_bytes)
        return self.last


class Forward(_Watched):
    """A file whose places count from where it stood, read without a step back."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.place = 0

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self.place

    def seek(self, offset: int) -> None:
        """Read up to a place, which may lie behind the end."""
        if offset < self.place:
            raise tarfile.ReadError(f"a header leads back to byte {offset}")
        while self.place < offset and self.read(min(offset - self.place, _BLOCK_BYTES)):
            continue

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes."""
        data = super().read(num_bytes)
        self.place += len(data)
        return data


def _content(file: Forward, member: tarfile.TarInfo, num_bytes: int | None) -> bytes:
    """Return a file's bytes, which follow its header."""
    end = member.offset_data + member.size
    try:
        if num_bytes is not None and end > num_bytes:
            raise tarfile.ReadError("reaches behind the end of the tar")
        file.seek(member.offset_data)
        data = file.read(member.size)
    except _DAMAGE as error:
        raise TarDamage(f"{member.name}: {error}") from None
    if len(data) != member.size:
        raise TarDamage(f"{member.name}: {len(data)} of {member.size} bytes are there")
    return data
