"""Memory that several processes map, in buffers that are used again and again."""

import mmap
import os
import sys
import tempfile
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_UNIT: Final = 1 << 20
"Sizes of buffers are multiples of it, in bytes."


@dataclass(frozen=True)
class Buffer:
    """A part of the shared memory."""

    first: int
    "Number of its first byte in the file."
    size: int
    memory: mmap.mmap


class SharedBuffers:
    """Buffers in a file without a name, of which nothing outlives the processes that map it."""

    def __init__(self) -> None:
        """Make an empty file; its descriptor, ``file``, is closed with this object."""
        if sys.platform == "linux":  # not /dev/shm, which is small in containers
            self.file = os.memfd_create("crops")
        else:
            with tempfile.TemporaryFile() as file:
                self.file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.file)
        self._lock = threading.Lock()
        self.size = 0
        "Bytes of all buffers."
        self._free: deque[Buffer] = deque()

    def take(self, size: int) -> tuple[Buffer, NDArray[np.uint8]]:
        """Return a buffer of at least ``size`` bytes; it is free when nothing refers to its array.

        There are as many buffers as arrays in use at the same time.
        """
        with self._lock:
            buffer = self._pop(size) or self._new(size)
        array = np.frombuffer(buffer.memory, np.uint8)
        # An array may be dropped anywhere, even within this method: appending takes no lock.
        weakref.finalize(array, self._free.append, buffer).atexit = False
        return buffer, array

    def _pop(self, size: int) -> Buffer | None:
        for _ in range(len(self._free)):
            buffer = self._free.popleft()
            if buffer.size >= size:
                return buffer
            self._free.append(buffer)
        return None

    def _new(self, size: int) -> Buffer:
        size = -(-size * 9 // 8 // _UNIT) * _UNIT  # the next JPEGs may be larger
        first, self.size = self.size, self.size + size
        os.ftruncate(self.file, self.size)
        return Buffer(first, size, mmap.mmap(self.file, size, offset=first))
