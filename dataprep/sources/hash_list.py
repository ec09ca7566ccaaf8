"""CC12M's hash list: ``url TAB sha256 TAB md5`` a line, in no order that one could rely on.

It says what each image was when the list was made. The table made of it is two NumPy files, keys
sorted and digests beside them, so that workers map them into memory and look up by bisection.
"""

import binascii
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

KEYS_FILE: Final = "keys.npy"
DIGESTS_FILE: Final = "digests.npy"
_DIGEST_BYTES: Final = 32


class HashTable:
    """SHA-256 by URL."""

    def __init__(self, keys: Path, digests: Path) -> None:
        self._keys = np.load(keys, mmap_mode="r")
        self._digests = np.load(digests, mmap_mode="r")

    def lookup(self, urls: Sequence[str]) -> list[str | None]:
        """Return the hexadecimal digest of each URL, or None where the list has none."""
        if not len(self._keys):
            return [None] * len(urls)
        keys = np.array([_key(url.encode()) for url in urls], np.uint64)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[places] == keys
        return [
            self._digests[place].tobytes().hex() if yes else None
            for place, yes in zip(places, known, strict=True)
        ]


def make_table(path: Path, folder: Path) -> tuple[int, int]:
    """Read a hash list and write its table; return how many lines are good and how many are bad."""
    keys, digests, bad = list[int](), bytearray(), 0
    with path.open("rb") as file:
        for line in file:
            url, _, rest = line.rstrip(b"\r\n").partition(b"\t")
            try:
                digest = binascii.unhexlify(rest.partition(b"\t")[0])
            except binascii.Error:
                digest = b""
            if not url or len(digest) != _DIGEST_BYTES:
                bad += 1
                continue
            keys.append(_key(url))
            digests += digest
    _save(folder, np.array(keys, np.uint64), np.frombuffer(digests, np.uint8))
    return len(keys), bad


def _save(folder: Path, keys: NDArray[np.uint64], digests: NDArray[np.uint8]) -> None:
    order = np.argsort(keys, kind="stable")
    np.save(folder / DIGESTS_FILE, digests.reshape(-1, _DIGEST_BYTES)[order])
    np.save(folder / KEYS_FILE, keys[order])


def _key(url: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(url, digest_size=8).digest(), "little")
