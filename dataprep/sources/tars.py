"""Files of a tar, streamed in order with one file at a time in memory.

tarfile takes a damaged header for the end of the archive. Here it raises, so that no file goes
missing silently. A link, a sparse file, a device and a file that is too large are yielded with a
problem: what they stand for cannot be read from a stream.
"""

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dataprep.sources.members import DAMAGED_FILE, LINKED_FILE, MAX_FILE_BYTES
from dataprep.sources.names import is_housekeeping, safe_name
from dataprep.sources.seekable_gzip import GZIP_DAMAGE

_DAMAGE: Final = (
    *(tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, zlib.error),
    *GZIP_DAMAGE,
)
"Raised by tarfile on damaged bytes; its documentation names only the first."
_BLOCK_BYTES: Final = 1 << 20


class TarDamage(ValueError):
    """The rest of a tar cannot be read."""


@dataclass(frozen=True)
class TarFile:
    """One file of a tar."""

    name: str
    "Path in the tar, as ``safe_name`` makes it."
    data: bytes = b""
    problem: str | None = None
    "Why the file cannot be read; None for a good file."
    reason: str = DAMAGED_FILE
    "Reason of the reject, if there is a problem."
    num_bytes: int = 0
    "Size of a file that is too large to be read; 0 for any other file."


def tar_files(
    file: Any, num_bytes: int | None = None, max_file_bytes: int = MAX_FILE_BYTES
) -> Iterator[TarFile]:
    """Yield the files of a tar, from the file's current offset; what is not data is left out.

    Args:
        file: read forward only; its own exceptions pass through.
        num_bytes: size of the tar, if other bytes may follow it.
        max_file_bytes: size of the largest file that is read.

    Raises:
        TarDamage: the rest cannot be read.
    """
    forward = Forward(file)
    for member in headers(forward, num_bytes):
        name = safe_name(member.name)
        if member.isdir() or is_housekeeping(member.name):
            continue
        if member.islnk() or member.issym():
            problem = f"{name} is a link to {safe_name(member.linkname)}"
            yield TarFile(name, problem=problem, reason=LINKED_FILE)
        elif not member.isreg() or member.issparse():
            yield TarFile(name, problem=f"{name} is a sparse file, a device or a pipe")
        elif member.size > max_file_bytes:
            _skip(forward, member, num_bytes)
            problem = f"{name} has {member.size} bytes, the limit is {max_file_bytes}"
            yield TarFile(name, problem=problem, num_bytes=member.size)
        else:
            yield TarFile(name, _content(forward, member, num_bytes))
    if num_bytes is None:
        _check_end(forward)


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
        if not 0 <= num_bytes <= MAX_FILE_BYTES:
            raise tarfile.ReadError(f"a read of {num_bytes} bytes")
        blocks, missing = [], num_bytes
        while missing and (block := self.file.read(missing)):  # a stream may give less
            blocks.append(block)
            missing -= len(block)
        self.last = b"".join(blocks)
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


def _check_end(file: Forward) -> None:
    """Read what follows the end of a tar, which also lets a compressed file compare its checksum.

    Raises:
        TarDamage: it is more than padding.
    """
    end = file.tell()
    try:
        while block := file.read(_BLOCK_BYTES):
            if block.strip(b"\0"):
                raise TarDamage(f"data follow the end of the tar at byte {end}: another tar?")
    except TarDamage:
        raise
    except _DAMAGE as error:
        raise TarDamage(str(error)) from None


def _skip(file: Forward, member: tarfile.TarInfo, num_bytes: int | None) -> None:
    """Move behind a file.

    Raises:
        TarDamage: the tar ends before.
    """
    end = _end(member, num_bytes)
    try:
        file.seek(end)
    except _DAMAGE as error:
        raise TarDamage(f"{safe_name(member.name)}: {error}") from None
    if file.tell() != end:
        raise TarDamage(f"{safe_name(member.name)}: truncated")


def _content(file: Forward, member: tarfile.TarInfo, num_bytes: int | None) -> bytes:
    """Return a file's bytes, which follow its header."""
    _end(member, num_bytes)
    try:
        file.seek(member.offset_data)
        data = file.read(member.size)
    except _DAMAGE as error:
        raise TarDamage(f"{safe_name(member.name)}: {error}") from None
    if len(data) != member.size:
        detail = f"truncated, {len(data)} of {member.size} bytes"
        raise TarDamage(f"{safe_name(member.name)}: {detail}")
    return data


def _end(member: tarfile.TarInfo, num_bytes: int | None) -> int:
    """Return the offset behind a file's bytes."""
    end = member.offset_data + member.size
    if num_bytes is not None and end > num_bytes:
        raise TarDamage(f"{safe_name(member.name)}: extends past the end of the tar")
    return end
