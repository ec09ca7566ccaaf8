"""Files compressed as gzip, bzip2, xz or zstd, recognized by their first bytes."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zst")
_MAGIC: Final = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # `BZh9` could begin a text: a block, the end of the file or nothing must follow.
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90|\Z)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # or a skippable frame
}
_OPEN: Final[dict[str, Callable[[BinaryIO], Any]]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
    "zstd": partial(pa.CompressedInputStream, compression="zstd"),
}
_HEAD_BYTES: Final = 10
_DAMAGE: Final = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_AFTER_GOOD: Final = ("Truncated", "Not a gzipped file")
"Words of zstd on a file that ends early, and of gzip on what follows the end of a whole file."
_BLOCK_BYTES: Final = 1 << 20
_SMALL_BYTES: Final = 1 << 16


class CompressionDamage(ValueError):
    """A compressed file cannot be unpacked.

    Where ``is_cut`` is set, the file ends early, or other bytes follow its end, and what was read
    before is good. Otherwise bytes were altered, and what was read before may be wrong too: gzip
    checks its sum at the end alone.
    """

    def __init__(self, detail: str, *, is_cut: bool = False) -> None:
        super().__init__(detail)
        self.is_cut = is_cut

    def __reduce__(self) -> tuple[Any, ...]:
        return _damage, (type(self), str(self), self.is_cut)


def _damage(kind: type[CompressionDamage], detail: str, is_cut: bool) -> CompressionDamage:
    return kind(detail, is_cut=is_cut)


def compression_of(path: Path) -> str | None:
    """Return ``gzip``, ``bzip2``, ``xz`` or ``zstd``, or None for any other file."""
    with path.open("rb") as file:
        return compression_by(file.read(_HEAD_BYTES))


def compression_by(head: bytes) -> str | None:
    """Return what :func:`compression_of` does, for a file that begins with ``head``."""
    return next((name for name, magic in _MAGIC.items() if magic.match(head)), None)


class TooLarge(CompressionDamage):
    """The unpacked content is larger than its reader takes."""


class Unpacked:
    """The unpacked bytes of a file or of its content, read forward; others are read as they are."""

    def __init__(self, file: Path | bytes) -> None:
        self._raw: BinaryIO = io.BytesIO(file) if isinstance(file, bytes) else file.open("rb")
        head = self._raw.read(_HEAD_BYTES)
        self._raw.seek(0)
        self.compression = compression_by(head)
        self._file: Any = _OPEN[self.compression](self._raw) if self.compression else self._raw

    def read(self, num_bytes: int) -> bytes:
        """Return at most ``num_bytes`` of the next bytes; none at the end.

        Raises:
            CompressionDamage: the rest cannot be unpacked.
            OSError: the file itself cannot be read.
        """
        try:
            if self.compression is None:
                return self._raw.read(num_bytes)
            # Small reads, and read1 where it exists, lose nothing of what precedes damage.
            read = getattr(self._file, "read1", self._file.read)
            return bytes(read(min(num_bytes, _SMALL_BYTES)))
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            words = str(error) or type(error).__name__
            raise CompressionDamage(
                f"damaged {self.compression} file ({words})",
                is_cut=isinstance(error, EOFError) or words.startswith(_AFTER_GOOD),
            ) from None

    def raw_offset(self) -> int:
        """Return the number of bytes of the file that were read so far."""
        return self._raw.tell()

    def __enter__(self) -> "Unpacked":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.close()


def read_unpacked(file: Path | bytes, max_bytes: int) -> bytes:
    """Return the whole unpacked content of a file.

    Raises:
        CompressionDamage: the file cannot be unpacked.
        TooLarge: it is larger than ``max_bytes``.
        OSError: the file cannot be read.
    """
    blocks, size = [], 0
    with Unpacked(file) as unpacked:
        while block := unpacked.read(_BLOCK_BYTES):
            size += len(block)
            if size > max_bytes:
                raise TooLarge(f"larger than {max_bytes} bytes")
            blocks.append(block)
    return b"".join(blocks)
