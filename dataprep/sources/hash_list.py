"""CC12M's hash list: one line ``url TAB sha256 TAB md5`` per image, in arbitrary order.

The digests are those of the images when the list was made. :func:`make_table` turns the list into
two NumPy files, sorted keys and their digests, which workers map into memory and search by
bisection.
"""

import binascii
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataprep.sources.lines import line_ranges, read_lines

KEYS_FILE: Final = "keys.npy"
DIGESTS_FILE: Final = "digests.npy"
_DIGEST_BYTES: Final = 32
_LINES_AT_A_TIME: Final = 1 << 18


class HashTable:
    """SHA-256 by URL."""

    def __init__(self, keys: Path, digests: Path) -> None:
        self._keys = np.load(keys, mmap_mode="r")
        self._digests = np.load(digests, mmap_mode="r")

    def lookup(self, urls: Sequence[str]) -> list[str | None]:
        """Return the hexadecimal digest of each URL, or None for a URL that is not in the list."""
        if not len(self._keys):
            return [None] * len(urls)
        keys = np.array([_key(url.encode()) for url in urls], np.uint64)
        rows = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[rows] == keys
        return [
            self._digests[row].tobytes().hex() if is_known else None
            for row, is_known in zip(rows, known, strict=True)
        ]


def make_table(path: Path, folder: Path) -> tuple[int, int]:
    """Read a hash list and write its table; return the numbers of good and of bad lines.

    Raises:
        ListError: the file is not UTF-8 text.
    """
    keys, digests, bad = list[int](), bytearray(), 0
    for line_range in line_ranges(path, _LINES_AT_A_TIME):
        for line in read_lines(path, line_range):
            url, _, rest = line.text.partition("\t")
            try:
                digest = binascii.unhexlify(rest.partition("\t")[0])
            except ValueError:
                digest = b""
            if line.problem or not url or len(digest) != _DIGEST_BYTES:
                bad += 1
                continue
            keys.append(_key(url.encode()))
            digests += digest
    _save(folder, np.array(keys, np.uint64), np.frombuffer(digests, np.uint8))
    return len(keys), bad


def _save(folder: Path, keys: NDArray[np.uint64], digests: NDArray[np.uint8]) -> None:
    order = np.argsort(keys, kind="stable")
    np.save(folder / DIGESTS_FILE, digests.reshape(-1, _DIGEST_BYTES)[order])
    np.save(folder / KEYS_FILE, keys[order])


def _key(url: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(url, digest_size=8).digest(), "little")
