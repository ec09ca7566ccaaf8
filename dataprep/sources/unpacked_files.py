"""Files of any compression, opened at any byte of what they unpack to.

A process unpacks a compressed file once, into an unnamed temporary file, and keeps the last one.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

from dataprep.sources.compression import CompressionDamage, Unpacked, compression_of

DAMAGED_LINE: Final = b"\0"
"Follows what was unpacked before damage, as a last line that stands for the damage."
_BLOCK_BYTES: Final = 1 << 24


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the unpacked bytes of a file at their start."""
    if compression_of(path) is None:
        with path.open("rb") as plain:
            yield plain
    else:
        # A descriptor of its own: the offset is shared by all who use the temporary file.
        with os.fdopen(os.dup(_unpacked_of(path)[0].fileno()), "rb") as unpacked:
            unpacked.seek(0)
            yield unpacked


def damage_of(path: Path) -> str | None:
    """Return what is wrong with the end of a file; None for a good one."""
    return None if compression_of(path) is None else _unpacked_of(path)[1]


def _unpacked_of(path: Path) -> tuple[IO[bytes], str | None]:
    status = path.stat()
    return _unpack(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _unpack(path: Path, _size: int, _modified_ns: int) -> tuple[IO[bytes], str | None]:
    """Return an unnamed file with the unpacked bytes, and the damage that ends them."""
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the cache
    with Unpacked(path) as file:
        try:
            while block := file.read(_BLOCK_BYTES):
                unpacked.write(block)
        except CompressionDamage as error:
            if not error.is_cut:
                unpacked.seek(0)
                unpacked.truncate()
            unpacked.write(DAMAGED_LINE)
            unpacked.flush()
            return unpacked, str(error)
    unpacked.flush()
    return unpacked, None
