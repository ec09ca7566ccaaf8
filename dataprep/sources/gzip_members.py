"""A gzip file read as its members, whose ends say which bytes have a verified checksum.

Python's gzip module checks a member's checksum only when it reads on, in the same call that opens
the next member. Damage there would hide that everything before it is sound.
"""

import zlib
from bisect import bisect_left
from typing import Any, BinaryIO, Final

_READ_BYTES: Final = 1 << 16
_INFLATED_BYTES: Final = 1 << 20
_GZIP: Final = 16 + zlib.MAX_WBITS
"zlib's code for a gzip header and trailer."


class GzipMembers:
    """The inflated bytes of a gzip file (RFC 1952)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate: Any = None
        "zlib's state of the current member; None between members."
        self._packed = b""
        "Bytes of the file that are not inflated yet."
        self._data = b""
        self._at = 0
        "Number of bytes of ``_data`` that were returned."
        self._num_inflated = 0
        self._ends: list[int] = []
        "Positions in the inflated bytes at which a member ended with the right checksum."

    @property
    def position(self) -> int:
        """Return the number of bytes returned so far."""
        return self._num_inflated - len(self._data) + self._at

    def member_ended_within(self, start: int, stop: int) -> bool:
        """Return whether a member ended, checksum verified, at a position in [start, stop]."""
        index = bisect_left(self._ends, start)
        return index < len(self._ends) and self._ends[index] <= stop

    def read(self, num_bytes: int) -> bytes:
        """Return up to ``num_bytes`` bytes; none at the end of the file.

        Raises:
            EOFError: the file ends within a member.
            zlib.error: a member is damaged.
        """
        if self._at == len(self._data) and not self._fill():
            return b""
        return self._take(self._at + num_bytes)

    def readline(self, max_bytes: int = _INFLATED_BYTES) -> bytes:
        """Return a line of up to ``max_bytes`` bytes; none at the end of the file.

        Raises:
            EOFError: the file ends within a member.
            zlib.error: a member is damaged.
        """
        parts: list[bytes] = []
        while max_bytes > 0 and (self._at < len(self._data) or self._fill()):
            newline = self._data.find(b"\n", self._at, self._at + max_bytes)
            part = self._take(newline + 1 if newline >= 0 else self._at + max_bytes)
            parts.append(part)
            max_bytes -= len(part)
            if newline >= 0:
                break
        return b"".join(parts)

    def _take(self, stop: int) -> bytes:
        taken = self._data[self._at : stop]
        self._at += len(taken)
        return taken

    def _fill(self) -> bool:
        """Inflate some bytes of one member; return False at the end of the file."""
        self._data, self._at = b"", 0
        while not self._data:
            if self._inflate is None and self._ends:  # zeros may pad the end of a member
                self._packed = self._packed.lstrip(b"\0")
            if not self._packed:
                self._packed = self._file.read(_READ_BYTES)
                if not self._packed:
                    if self._inflate is None:
                        return False
                    raise EOFError("the file ends within a gzip member")
                continue
            self._inflate = self._inflate or zlib.decompressobj(_GZIP)
            self._data = self._inflate.decompress(self._packed, _INFLATED_BYTES)
            self._num_inflated += len(self._data)
            self._packed = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self._packed = self._inflate.unused_data
                self._ends.append(self._num_inflated)
                self._inflate = None
        return True
